#!/usr/bin/env python3
"""Writes the seeds of the fuzz targets to tests/fuzz/corpus: python3 tests/fuzz/make_corpus.py"""
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(target, name, data):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as f:
        f.write(data)


def safetensors(tensors, metadata=None):
    """tensors: (name, dtype, shape, bytes), in the order of the file."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape, values in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def floats(*values):
    return struct.pack("<%df" % len(values), *values)


put("fuzz_json", "values", b'{"a":[1,-2.5e3,true,false,null,"x\\u00e9\\ud83d\\ude00"],"b":{"c":{}},"d":-0}')
put("fuzz_json", "numbers", b"[0,-0,1e308,4.9e-324,9223372036854775807,-9223372036854775808,9223372036854775808,0.1]")
put("fuzz_json", "reals", b'["NaN","-NaN","Infinity","-Infinity","nan"]')
put("fuzz_json", "escapes", b'"\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\xc3\xa9\xf0\x9f\x98\x80"')
put("fuzz_json", "deep", b"[" * 20 + b"]" * 20)
put("fuzz_json", "space", b' \t\r\n{ "k" : [ 1 , 2 ] } ')

put("fuzz_safetensors", "two", safetensors([("a", "F32", [2, 1], floats(1, 2)), ("b", "U8", [3], b"abc")], {"format": "pt"}))
put("fuzz_safetensors", "empty", safetensors([]))
put("fuzz_safetensors", "scalar", safetensors([("s", "I64", [], struct.pack("<q", 5)), ("z", "F16", [0, 3], b"")]))

WEIGHTS = safetensors([("fc.bias", "F32", [2], floats(0.5, -0.5)), ("fc.weight", "F32", [2, 3], floats(1, 2, 3, 4, 5, 6))])
OPTIMIZER = safetensors(
    [
        ("optimizer.step", "I64", [], struct.pack("<q", 3)),
        ("fc.bias.momentum_buffer", "F32", [2], floats(0, 0)),
        ("fc.weight.momentum_buffer", "F32", [2, 3], floats(0, 0, 0, 0, 0, 0)),
        ("optimizer.lr", "F32", [], floats(0.1)),
    ]
)
BODY = (
    b'{"format":"fasttrain checkpoint","version":1,"fasttrain":"0.1.0","seed":"1","step":3,"epoch":0,"position":3,'
    b'"applied_steps":3,"metric":0.5,"metric_name":"loss","sections":{"plan":{"steps":3,"inputs":{"x":"f32 [2, 3]",'
    b'"y":"f32 [2, 2]"},"updates":{"optimizer":{"op":"sgd_update","lr_scale":1,"momentum":0.5,"tensors":10}}}},'
    b'"metadata":{"note":"n"},"files":{"weights.safetensors":{"bytes":@W,"crc32c":"@w"},'
    b'"optimizer.safetensors":{"bytes":@O,"crc32c":"@o"}},'
)


def record(kind, data):
    return bytes([kind]) + struct.pack("<H", len(data)) + data


FILES = record(2, WEIGHTS) + record(3, OPTIMIZER)
put("fuzz_checkpoint", "whole", record(1, BODY) + FILES)
put("fuzz_checkpoint", "no_tail", record(0, BODY) + FILES)
put("fuzz_checkpoint", "no_files", record(1, BODY))
put("fuzz_checkpoint", "newer", record(1, BODY.replace(b'"version":1', b'"version":2')) + FILES)
put("fuzz_checkpoint", "other_shape", record(1, BODY.replace(b"[2, 3]", b"[4, 3]")) + FILES)
put("fuzz_checkpoint", "name", record(4, b"step-000000000123.1"))
put("fuzz_checkpoint", "long_name", record(4, b"step-1000000000000"))
