"""Files are read as profilers write them; what is no JSON is named."""

from __future__ import annotations

import json

import pytest

from sdtrt.errors import PlanError
from sdtrt.readers import documents
from sdtrt.readers.documents import parse


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "x.profile.json"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_control_characters_stay_in_names(file):
    assert parse(file('[{"name": "a\x1eb\x1f\n"}]')).data == [{"name": "a\x1eb\x1f\n"}]


def test_unescaped_quotes_of_a_profile_are_mended_and_noted(file):
    names = ['say "hi", you', 'back\\slash "q"', "plain", '"']
    records = "\n, ".join(f'{{ "name" : "{n}", "timeMs" : 1, "averageMs" : 0.5 }}' for n in names)
    document = parse(file(f'[\n  {{ "count" : 2 }}\n, {records}\n]\n'))
    assert [r["name"] for r in document.data[1:]] == names
    assert "mended" in document.notes[0]


def test_unescaped_quotes_of_a_graph_are_mended_and_its_escapes_kept(file):
    text = '{"Layers": [{\n  "Name": "a "b" c",\n  "Metadata": "[ONNX Layer: x]\\u001e[ONNX Layer: y]"\n}]}'
    assert parse(file(text)).data["Layers"] == [{"Name": 'a "b" c', "Metadata": "[ONNX Layer: x]\x1e[ONNX Layer: y]"}]


def test_a_file_that_is_cut_off_is_named(file):
    path = file('{"Layers": [{"Name": "a", "Outp')
    with pytest.raises(PlanError, match="not JSON") as caught:
        parse(path)
    assert caught.value.slug == "plan-json"
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", ["", "\x00\xff", "[" * 100_000, '{"a":' * 50_000, b"\xff\xfe[\x00]\x00", "[1,]"])
def test_what_is_no_json_is_a_plan_error(file, content):
    with pytest.raises(PlanError):
        parse(file(content))


def test_numbers_that_are_none_are_dropped_and_noted(file):
    document = parse(file(f"[NaN, -Infinity, 1e999, {'9' * 5000}, 1.5, 7]"))
    assert document.data == [None, None, None, None, 1.5, 7]
    assert document.notes == ("left out: 4 numbers in x.profile.json that are infinite or have too many digits",)


def test_half_a_surrogate_pair_can_be_written_again(file):
    data = parse(file('["a\\ud800b", {"\\udfffk": "\\ud83d\\ude00"}]')).data
    assert data == ["a?b", {"?k": "\U0001f600"}]
    json.dumps(data, ensure_ascii=False).encode()


def test_a_byte_order_mark_and_broken_utf8_do_not_stop_it(file):
    assert parse(file(b'\xef\xbb\xbf["\xff"]')).data == ["�"]


def test_a_file_has_a_largest_size(file, monkeypatch):
    monkeypatch.setattr(documents, "LIMIT_BYTES", 10)
    with pytest.raises(PlanError) as caught:
        parse(file("[1, 2, 3, 4]"))
    assert caught.value.slug == "plan-size"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(PlanError) as caught:
        parse(tmp_path / "no.json")
    assert caught.value.slug == "plan-missing"


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("unet.engine", b"ftrt\x00\x01\xfe\xff", "trtexec --loadEngine"),
        ("unet.onnx", b"\x08\x07\x12\x04", "--onnx"),
        ("unet.graph.json", b'{"Layers": [', "cut off"),
    ],
)
def test_a_file_that_is_not_json_comes_with_what_to_give_instead(tmp_path, name, text, hint):
    (tmp_path / name).write_bytes(text)
    with pytest.raises(PlanError) as caught:
        parse(tmp_path / name)
    assert caught.value.slug == "plan-json"
    assert hint in caught.value.hint
