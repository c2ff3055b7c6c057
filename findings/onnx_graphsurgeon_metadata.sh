#!/usr/bin/env bash
# Guess: onnx-graphsurgeon imports a model and exports it again, nothing changed in between, and whatever a field of ONNX
#   holds is there afterwards. Where torch's exporter notes the module of every node (metadata_props of the node), a pass
#   written with graphsurgeon would keep it.
# Version: onnx-graphsurgeon 0.6.1, onnx 1.23.2.
# Behavior: names, types, shapes, the graph's doc_string and the producer's name survive. A node's metadata_props and
#   doc_string, the graph's and the model's metadata_props, the model's doc_string and its version are gone, without a
#   warning.
# Output seen:
#   node: name=kept metadata_props=lost doc_string=lost
#   graph: doc_string=kept metadata_props=lost
#   model: metadata_props=lost doc_string=lost producer_name=kept model_version=lost
# What follows: what must live through a graphsurgeon pass has to stand in a name.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check onnx==1.23.2 onnx-graphsurgeon==0.6.1 numpy==2.4.6
cat >"$work/roundtrip.py" <<'PY'
import onnx
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper


def note(holder):
    entry = holder.metadata_props.add()
    entry.key, entry.value = "module", "down_blocks.0"


def word(value):
    return "kept" if value else "lost"


node = helper.make_node("Relu", ["x"], ["y"], "/down_blocks.0/Relu")
node.doc_string = "of a node"
note(node)
shape = ["B", 3]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy"]
graph = helper.make_graph([node], "g", ends[:1], ends[1:])
graph.doc_string = "of a graph"
note(graph)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], producer_name="someone")
model.doc_string, model.model_version = "of a model", 7
note(model)
onnx.checker.check_model(model)

after = gs.export_onnx(gs.import_onnx(model))
(back,) = after.graph.node
print(f"node: name={word(back.name == node.name)} metadata_props={word(back.metadata_props)}"
      f" doc_string={word(back.doc_string)}")
print(f"graph: doc_string={word(after.graph.doc_string)} metadata_props={word(after.graph.metadata_props)}")
print(f"model: metadata_props={word(after.metadata_props)} doc_string={word(after.doc_string)}"
      f" producer_name={word(after.producer_name)} model_version={word(after.model_version)}")
PY
"$work/venv/bin/python" "$work/roundtrip.py" 2>/dev/null | tee "$work/seen"
diff "$work/seen" - <<'SEEN'
node: name=kept metadata_props=lost doc_string=lost
graph: doc_string=kept metadata_props=lost
model: metadata_props=lost doc_string=lost producer_name=kept model_version=lost
SEEN
