"""Peak rates of GPUs, from NVIDIA's data sheets and architecture papers: dense, boost clock, no sparsity.

A device is found by words of the name that its driver gives it; the first line whose words are all there counts, so
longer lists of words stand first. TFLOP/s of the matrix units by type, TFLOP/s of plain float32, GB/s of memory.
float32 products run as TF32 where the units have it, which TensorRT allows by default. GeForce figures are those of
float16 accumulation.
"""

from __future__ import annotations

MATRIX_DTYPES = ("float32", "float16", "bfloat16", "float8", "int8", "float4")
Row = tuple[tuple[str, ...], tuple[float | None, ...], float, float]

DEVICES: tuple[Row, ...] = (
    (("B200",), (1125.0, 2250.0, 2250.0, 4500.0, 4500.0, 9000.0), 75.0, 8000.0),
    (("H200", "NVL"), (418.0, 835.5, 835.5, 1671.0, 1671.0, None), 60.0, 4800.0),
    (("H200",), (494.7, 989.4, 989.4, 1978.9, 1978.9, None), 66.9, 4800.0),
    (("H100", "PCIe"), (378.0, 756.0, 756.0, 1513.0, 1513.0, None), 51.2, 2000.0),
    (("H100", "NVL"), (418.0, 835.5, 835.5, 1671.0, 1671.0, None), 60.0, 3938.0),
    (("H100",), (494.7, 989.4, 989.4, 1978.9, 1978.9, None), 66.9, 3350.0),
    (("A100", "SXM", "80GB"), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 2039.0),
    (("A100", "80GB"), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 1935.0),
    (("A100",), (156.0, 312.0, 312.0, None, 624.0, None), 19.5, 1555.0),
    (("L40S",), (183.0, 362.0, 362.0, 733.0, 733.0, None), 91.6, 864.0),
    (("L40",), (90.5, 181.0, 181.0, 362.0, 362.0, None), 90.5, 864.0),
    (("L4",), (60.0, 121.0, 121.0, 242.5, 242.5, None), 30.3, 300.0),
    (("RTX 6000 Ada",), (182.1, 364.2, 364.2, 728.5, 728.5, None), 91.1, 960.0),
    (("A6000",), (77.4, 154.8, 154.8, None, 309.7, None), 38.7, 768.0),
    (("A10",), (62.5, 125.0, 125.0, None, 250.0, None), 31.2, 600.0),
    (("RTX 5090",), (104.8, 419.0, 209.5, 838.0, 838.0, 1676.0), 104.8, 1792.0),
    (("RTX 4090",), (82.6, 330.3, 165.2, 660.6, 660.6, None), 82.6, 1008.0),
    (("RTX 3090",), (35.6, 142.0, 71.0, None, 284.0, None), 35.6, 936.0),
    (("RTX 3080",), (29.8, 119.0, 59.5, None, 238.0, None), 29.8, 760.0),
    (("V100",), (None, 125.0, None, None, None, None), 15.7, 900.0),
    (("T4",), (None, 65.0, None, None, 130.0, None), 8.1, 320.0),
)
