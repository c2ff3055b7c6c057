"""`plan.df` and the tables cut from it, with TREx's column names.

A key that a layer does not have is NaN, as is a figure that is not known. TREx writes 0 for both.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

import pandas as pd

from sdtrt.analysis.trex._convolution import annotate_convolutions
from sdtrt.analysis.trex.activations import Activation
from sdtrt.analysis.trex.layer import Layer

__all__ = [
    "annotate_convolutions",
    "change_col_order",
    "clean_df",
    "clean_for_display",
    "clean_io",
    "drop_columns",
    "filter_by_layer",
    "layer_attributes",
]

# For each type the raw keys that `filter_by_layer` keeps, and what it calls them.
layer_attributes: dict[str, dict[str, str]] = {
    "Convolution": {
        "Groups": "attr.groups",
        "OutMaps": "attr.out_maps",
        "Stride": "attr.stride",
        "Kernel": "attr.kernel",
        "HasBias": "attr.has_bias",
        "Activation": "attr.activation",
        "HasReLU": "attr.has_relu",
        "Dilation": "attr.dilation",
        "Weights": "Weights",
        "Operations": "attr.operations",
        "NbOperations": "attr.n_operations",
    },
    # TensorRT 8 and later, then what TensorRT 7 called the same.
    "PointWise": {
        "Operations": "attr.operations",
        "NbOperations": "attr.n_operations",
        "NbInputArgs": "attr.n_input_args",
        "Instructions": "attr.operations",
        "NbInstructions": "attr.n_operations",
        "NbInputs": "attr.n_input_args",
    },
    "Reformat": {"Origin": "attr.origin"},
    "Pooling": {
        "PoolingType": "attr.pooling_type",
        "WindowSize": "attr.window_size",
        "PaddingMode": "attr.padding_mode",
        "Stride": "attr.stride",
    },
    "Scale": {
        "Mode": "attr.mode",
        "Shift": "attr.shift",
        "Scale": "attr.scale",
        "Power": "attr.power",
        "Activation": "attr.activation",
        "ChannelAxis": "attr.ch_axis",
    },
    "Shuffle": {
        "FirstTranspose": "attr.first_transpose",
        "SecondTranspose": "attr.second_transpose",
        "Reshape": "attr.reshape",
    },
    "Resize": {"ResizeMode": "attr.mode", "ResizeScales": "attr.scales", "NNRounding": "attr.scale"},
    "Slice": {"Start": "attr.start", "Stride": "attr.stride", "Size": "attr.size", "Mode": "attr.mode"},
}
_COMMON = (
    *("Name", "type", "precision", "output_precision", "tactic", "latency.pct_time", "latency.avg_time"),
    *("total_io_size_bytes", "weights_size", "total_footprint_bytes", "Inputs", "Outputs", "subtype", "module", "macs"),
)
_FIRST = (
    *("Name", "type", "Inputs", "Outputs", "latency.avg_time", "latency.pct_time"),
    *("total_footprint_bytes", "tactic"),
)
_LATENCIES = {
    "latency.time": "total_ms",
    "latency.avg_time": "mean_ms",
    "latency.median_time": "median_ms",
    "latency.pct_time": "percentage",
}
_RENAMED = {"LayerType": "subtype", "TacticName": "tactic"}
# The raw keys that are of interest for every layer; all others, which start with a capital too, belong to few types.
_RAW = frozenset({"Name", "Inputs", "Outputs", "TacticValue", "StreamId", "Metadata"})


def layer_table(layers: Sequence[Layer], backend: str, more: Mapping[str, Any]) -> pd.DataFrame:
    """One row per layer: its raw keys, what TREx derives from them, and `more` columns, such as times."""
    raw = [layer.raw_dict for layer in layers]
    keys = dict.fromkeys(key for record in raw for key in record if key != "ParameterType")
    columns: dict[str, list[Any]] = {_RENAMED.get(k, k): [record.get(k, nan) for record in raw] for k in keys}
    columns["type"] = [layer.type for layer in layers]
    columns["tactic"] = [record.get("TacticName", backend) for record in raw]
    for name in ("precision", "output_precision", "total_io_size_bytes", "weights_size", "total_footprint_bytes"):
        columns[name] = [getattr(layer, name) for layer in layers]
    if any(layer.source.module for layer in layers):
        columns["module"] = [layer.source.module or nan for layer in layers]
    return pd.DataFrame({**columns, **more})


def latency_columns(layers: Sequence[Layer], total_ms: float) -> pd.DataFrame:
    """The times of each layer; a share that was not recorded is that of `total_ms`, the sum over the whole plan."""
    columns = {name: [getattr(layer.timing, field) for layer in layers] for name, field in _LATENCIES.items()}
    table = pd.DataFrame(columns, dtype="float64")
    shares = 100 * table["latency.avg_time"] / (total_ms or nan)
    return table.assign(**{"latency.pct_time": table["latency.pct_time"].fillna(shares)})


def filter_by_layer(df: pd.DataFrame, layer_type: str) -> pd.DataFrame:
    """The layers of one type with the columns that matter for it, raw keys renamed to `attr.*`."""
    attributes = layer_attributes.get(layer_type, {})
    layers = df[df["type"] == layer_type]
    kept = [column for column in (*_COMMON, *attributes) if column in layers.columns]
    table = layers[list(dict.fromkeys(kept))].copy()
    for key, name in attributes.items():
        if key in table.columns and key != name:
            table[name] = table[name].fillna(table[key]) if name in table.columns else _tidy(table[key])
            table = table.drop(columns=key)
    if layer_type == "Convolution" and len(table):
        annotate_convolutions(table)
    return table.drop(columns="macs", errors="ignore")


def _tidy(column: pd.Series) -> pd.Series:
    """Integers that pandas read as floats beside a NaN of another row, and lists as tuples, which can be grouped."""
    if pd.api.types.is_float_dtype(column):
        return column.astype("int64") if (column % 1 == 0).all() else column
    return pd.Series([tuple(x) if isinstance(x, list) else x for x in column], column.index).infer_objects()


def change_col_order(df: pd.DataFrame) -> pd.DataFrame:
    """The columns that matter most first."""
    first = [column for column in _FIRST if column in df.columns]
    return df[[*first, *(column for column in df.columns if column not in _FIRST)]]


def drop_columns(df: pd.DataFrame, columns: Iterable[str]) -> None:
    """Remove columns in place; one that is not there is no error."""
    for column in set(columns) & set(df.columns):
        del df[column]


def clean_io(df: pd.DataFrame) -> None:
    """Replace `Inputs` and `Outputs` by the short names of their formats, in place."""
    for side in ("Inputs", "Outputs"):
        df[side] = [
            ", ".join(Activation(tensor).format for tensor in tensors) if isinstance(tensors, list) else tensors
            for tensors in df[side]
        ]


def clean_df(df: pd.DataFrame, inplace: bool = True) -> pd.DataFrame:
    """Without the raw keys of single layer types, and with short inputs and outputs."""
    df = df if inplace else df.copy()
    clean_io(df)
    drop_columns(df, [column for column in df.columns if column[:1].isupper() and column not in _RAW])
    return df


def clean_for_display(df: pd.DataFrame) -> pd.DataFrame:
    """A copy with the columns of interest, the most important first; columns without a value are left out."""
    table = change_col_order(clean_df(df, inplace=False)).dropna(axis="columns", how="all")
    drop_columns(table, ("subtype", "TacticValue", "precision", "total_io_size_bytes", "macs"))
    return table
