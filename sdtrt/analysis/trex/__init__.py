"""TREx's names over sdtrt's plans: `from sdtrt.analysis.trex import *` in place of `from trex import *`.

A notebook of TREx, NVIDIA's former engine explorer, runs with its import lines changed. `import sdtrt.analysis.trex as
trex` has TREx's modules as well: `trex.plotting`, `trex.notebook`, `trex.graphing`, `trex.colors` and so on. Values are
TREx's where TREx is right; what is not known is NaN, where TREx writes 0.
"""
# ruff: noqa: F403 (each module lists in `__all__` which of its names are TREx's)

from functools import partial as partial

from sdtrt.analysis.trex.activations import *
from sdtrt.analysis.trex.colors import *
from sdtrt.analysis.trex.compare_engines import *
from sdtrt.analysis.trex.df_preprocessing import *
from sdtrt.analysis.trex.engine_plan import *
from sdtrt.analysis.trex.graphing import *
from sdtrt.analysis.trex.layer import *
from sdtrt.analysis.trex.lint import *
from sdtrt.analysis.trex.misc import *
from sdtrt.analysis.trex.notebook import *
from sdtrt.analysis.trex.plotting import *
from sdtrt.analysis.trex.report_card import *

_modules = {name: value for name, value in globals().items() if hasattr(value, "__all__")}
# A notebook's own variables are often called `layer`.
__all__ = sorted({"partial", *_modules, *(name for module in _modules.values() for name in module.__all__)} - {"layer"})
