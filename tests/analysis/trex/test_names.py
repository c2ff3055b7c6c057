"""A TREx notebook runs by changing its import lines: all names are there, under TREx's modules too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sdtrt.analysis import trex

# What NVIDIA's article and TREx's own notebooks use.
NAMES = [
    "EnginePlan",
    "summary_dict",
    "print_summary",
    "Activation",
    "create_activations",
    "display_df",
    "set_wide_display",
    "section_header",
    "set_table_display_backend",
    "clean_df",
    "clean_for_display",
    "clean_io",
    "change_col_order",
    "drop_columns",
    "filter_by_layer",
    "annotate_convolutions",
    "group_count",
    "group_sum_attr",
    "group_mean_attr",
    "shape_to_str",
    "stack_dicts",
    "stack_dataframes",
    "plotly_bar2",
    "plotly_hist",
    "plotly_pie",
    "plotly_pie2",
    "stacked_bars",
    "stacked_tabular",
    "stacked_tabular_df",
    "rotate_columns",
    "trex_base_layout",
    "create_layout",
    "layer_colormap",
    "precision_colormap",
    "default_pallete",
    "layer_type_formatter",
    "precision_formatter",
    "layer_precision_formatter",
    "to_dot",
    "render_dot",
    "layer_latency_sunburst",
    "plot_engine_timings",
    "report_card_perf_overview",
    "report_card_perf_overview_widget",
    "report_card_convolutions_overview",
    "report_card_convolutions_overview_widget",
    "report_card_table_view",
    "report_card_memory_footprint",
    "report_card_memory_footprint_widget",
    "report_card_draw_plan_graph",
    "report_card_draw_plan_graph_extended",
    "report_card_pointwise_lint",
    "report_card_gemm_MNK",
    "report_card_gemm_MNK_scatter",
    "report_card_perf_scatter",
    "report_card_efficiency_vs_latency_3d",
    "report_card_reformat_overview",
    "ConvLinter",
    "ReformatLinter",
    "SliceLinter",
    "QDQLinter",
    "get_plans_names",
    "compare_engines_overview",
    "compare_engines_summaries_tbl",
    "compare_engines_layer_latencies",
    "partial",
]
MODULES = {
    "plotting": "plotly_bar2 plotly_hist plotly_pie2 stacked_bars",
    "notebook": "display_df set_wide_display",
    "graphing": "to_dot render_dot layer_type_formatter precision_formatter",
    "df_preprocessing": "clean_for_display filter_by_layer",
    "colors": "layer_colormap precision_colormap",
    "misc": "group_count group_sum_attr",
    "report_card": "report_card_perf_overview report_card_gemm_MNK layer_latency_sunburst",
    "activations": "Activation create_activations",
    "lint": "ConvLinter",
    "compare_engines": "compare_engines_overview",
    "engine_plan": "EnginePlan",
}


def test_import_star_gives_every_name():
    space: dict[str, object] = {}
    exec("from sdtrt.analysis.trex import *", space)
    assert set(NAMES) | set(MODULES) <= set(space)


@pytest.mark.parametrize("module", MODULES)
def test_the_modules_of_trex_have_their_functions(module):
    assert all(getattr(getattr(trex, module), name) for name in MODULES[module].split())


def test_exported_names_exist_and_are_sorted():
    assert all(hasattr(trex, name) for name in trex.__all__)
    assert list(trex.__all__) == sorted(trex.__all__)


def test_the_colormaps_know_the_labels_of_the_tables_and_are_gray_beyond_them():
    assert {"FP32", "FP16", "BF16", "FP8", "INT8", "INT32"} <= set(trex.precision_colormap)
    assert {"Convolution", "gemm", "kgen", "Reformat", "PointWise"} <= set(trex.layer_colormap)
    assert trex.precision_colormap["?"] == trex.layer_colormap["?"] == "gray"


def test_importing_it_loads_neither_plotly_nor_a_runtime():
    heavy = ["plotly", "graphviz", "onnx", "torch", "onnxruntime", "IPython", "tensorrt", "openpyxl"]
    code = f"import sys, sdtrt.analysis.trex; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
