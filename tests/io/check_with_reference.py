"""Compares fasttrain's safetensors with the reference library (packages safetensors, torch and numpy). Run by hand:

    python tests/io/check_with_reference.py            compare; builds the library from fasttrain.h
    python tests/io/check_with_reference.py --write    write tests/io/data/ anew

--library PATH takes a shared library that is already built.
"""
import argparse
import ctypes
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile

import safetensors
import safetensors.torch
import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = ROOT / "tests/io/data"

# The reference's sentences and the names of its errors.
NAMES = [
    ("header too small", "HeaderTooSmall"),
    ("header too large", "HeaderTooLarge"),
    ("invalid header length", "InvalidHeaderLength"),
    ("invalid UTF-8 in header", "InvalidHeader"),
    ("invalid JSON in header", "InvalidHeaderDeserialization"),
    ("invalid offset for tensor", "InvalidOffset"),
    ("overflow computing buffer size", "ValidationOverflow"),
    ("The slice is slicing for subbytes", "MisalignedSlice"),
    ("invalid shape, data type, or offset", "TensorInvalidInfo"),
    ("incomplete metadata, file not fully covered", "MetadataIncompleteBuffer"),
]


class Entry(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype_name", ctypes.c_char_p), ("dtype", ctypes.c_int),
                ("rank", ctypes.c_int32), ("dim", ctypes.POINTER(ctypes.c_int64)), ("data", ctypes.c_void_p),
                ("bytes", ctypes.c_size_t)]


class Shape(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_int32), ("dim", ctypes.c_int64 * 6)]


class Item(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("dtype", ctypes.c_int), ("shape", Shape), ("data", ctypes.c_void_p)]


DTYPES = {torch.float32: 1, torch.float64: 2, torch.int32: 3, torch.int64: 4, torch.uint8: 5, torch.bool: 6,
          torch.float16: 7, torch.bfloat16: 8}


class Fasttrain:
    def __init__(self, path):
        self.lib = ctypes.CDLL(str(path))
        self.lib.ftr_error_message.restype = ctypes.c_char_p
        self.lib.ftr_safetensors_count.restype = ctypes.c_int64
        self.lib.ftr_safetensors_at.restype = ctypes.c_bool
        self.lib.ftr_safetensors_metadata.restype = ctypes.c_char_p
        self.context = ctypes.c_void_p()
        assert self.lib.ftr_context_create(None, ctypes.byref(self.context)) == 0

    def parse(self, data):
        """The tensors of a file as {name: (dtype, shape, bytes)}, or the name of the error."""
        file = ctypes.c_void_p()
        status = self.lib.ftr_safetensors_parse(self.context, b"t", data, ctypes.c_size_t(len(data)), ctypes.byref(file))
        if status != 0:
            return self.lib.ftr_error_message(self.context).decode().split(": ")[1]
        tensors = {}
        for i in range(self.lib.ftr_safetensors_count(file)):
            entry = Entry()
            assert self.lib.ftr_safetensors_at(file, ctypes.c_int64(i), ctypes.byref(entry))
            tensors[entry.name.decode()] = (entry.dtype_name.decode(), [entry.dim[d] for d in range(entry.rank)],
                                            ctypes.string_at(entry.data, entry.bytes))
        self.lib.ftr_safetensors_close(file)
        return tensors

    def write(self, path, tensors, metadata):
        items = (Item * max(len(tensors), 1))()
        for item, (name, tensor) in zip(items, tensors.items()):
            item.name, item.dtype = name.encode(), DTYPES[tensor.dtype]
            item.shape.rank = tensor.dim()
            for d, size in enumerate(tensor.shape):
                item.shape.dim[d] = size
            item.data = tensor.data_ptr()
        words = [word.encode() for pair in metadata.items() for word in pair]
        pairs = (ctypes.c_char_p * max(len(words), 1))(*words)
        status = self.lib.ftr_safetensors_write(self.context, str(path).encode(), items, ctypes.c_int64(len(tensors)), pairs,
                                                ctypes.c_int64(len(metadata)))
        assert status == 0, self.lib.ftr_error_message(self.context)


def reference(data):
    """As Fasttrain.parse(), of the reference."""
    try:
        found = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        text = str(error).removeprefix("Error while deserializing: ")
        return next((name for start, name in NAMES if text.startswith(start)), text)
    return {name: (entry["dtype"], list(entry["shape"]), bytes(entry["data"])) for name, entry in found}


def pack(header, data=b""):
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def one(shape, begin, end, dtype="U8", **more):
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}}


def corpus():
    """Files on which both must agree to the name of the error."""
    raw = '{"a":{"dtype":"U8","shape":%s,"data_offsets":%s}}'
    yield from (b"", b"1234567", struct.pack("<Q", 100000001) + b"{}", struct.pack("<Q", 2**64 - 1) + b"{}",
                struct.pack("<Q", 3) + b"{}", struct.pack("<Q", 100000000) + b"{}", struct.pack("<Q", 2) + b"\xff}")
    for header in ["", "{}", "  {}", "{}\t\r\n ", "{}\0", "\ufeff{}", "[]", "null", "1", '"a"', "{", "{}}", '{"a":5}',
                   '{"a":{}}', '{"a":null}', '{"__metadata__":null}', '{"__metadata__":{}}', '{"__metadata__":[]}',
                   '{"__metadata__":{"a":1}}', '{"__metadata__":{"a":null}}', '{"__metadata__":{"a":"\\u00e9\\n"}}',
                   '{"__metadata__":{"a":"b"},"__metadata__":{"a":"b"}}', '{"\\u005f_metadata__":{"a":"b"}}',
                   raw % ("[-1]", "[0,0]"), raw % ("[-0]", "[0,0]"), raw % ("[0.0]", "[0,0]"), raw % ("[0e0]", "[0,0]"),
                   raw % ("[00]", "[0,0]"), raw % ("[0]", "[0]"), raw % ("[0]", "[0,0,0]"), raw % ("[0]", "null"),
                   raw % ("null", "[0,0]"), raw % ("[0]", "[0,0.0]"), raw % ("[0]", '["0",0]'), raw % ("[1e999]", "[0,0]"),
                   raw % ("[18446744073709551616,0]", "[0,0]"), raw % ("[0]", "[0,0],\"dtype\":\"U8\""),
                   '{"\\ud800":%s}' % raw[5:-1] % ("[0]", "[0,0]"), '{"\\ud83d\\ude00":%s}' % raw[5:-1] % ("[0]", "[0,0]"),
                   '{"":%s}' % raw[5:-1] % ("[0]", "[0,0]"), '{"a\x01":%s}' % raw[5:-1] % ("[0]", "[0,0]"),
                   '{"\xe9\u2028":%s}' % raw[5:-1] % ("[0]", "[0,0]")]:
        yield pack(header)
    for depth in (10, 124, 125, 126, 200):
        yield pack('{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0],"x":%s}}' % ("[" * depth + "]" * depth))
    for header, size in [(one([1], 0, 1), 2), (one([2], 0, 2), 1), (one([2**62, 4], 0, 2, "F32"), 2),
                         (one([2**62, 4, 0], 0, 0, "F32"), 0), (one([0, 2**62, 4], 0, 0, "F32"), 0),
                         (one([2**60], 0, 0, "F32"), 0), (one([2**58], 0, 0, "F32"), 0), (one([3], 0, 1, "F4"), 1),
                         (one([1], 1, 2), 2), (one([0], 1, 0), 0), (one([1], 0, 1, more=[{"x": None}]), 1),
                         (one([3], 0, 8, "F32"), 8), (one([], 0, 4, "F32"), 4), (one([], 0, 0, "F32"), 0),
                         (one([1] * 70, 0, 1), 1), (one([0], 0, 0, "f32"), 0), (one([0], 0, 0, "F31"), 0),
                         ({**one([1], 0, 1), "b": {"dtype": "U8", "shape": [1], "data_offsets": [2, 3]}}, 3),
                         ({**one([2], 0, 2), "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}}, 3),
                         ({**one([1], 0, 1), "b": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}}, 1)]:
        yield pack(header, bytes(size))
    for name in ("BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 "
                 "C64 F64 I64 U64 C128 I4 F8_E3M4").split():
        for size in (4, 6, 8, 16, 32, 64):
            yield pack(one([2, 4], 0, size, name), bytes(range(size)))


def is_stricter(data, ours):
    """Whether fasttrain refuses a file on purpose that the reference reads as JSON: keys that come twice, names with NUL,
    dimensions beyond int64, entries as arrays or types as objects, which the format does not have."""
    if ours != "InvalidHeaderDeserialization":
        return False
    length = struct.unpack("<Q", data[:8])[0]
    twice = []

    def pairs(members):
        keys = [key for key, _ in members]
        twice.extend(key for key in keys if keys.count(key) > 1)
        return dict(members)

    try:
        header = json.loads(data[8:8 + length], object_pairs_hook=pairs)
    except ValueError:
        return False
    metadata = header.pop("__metadata__", None) or {}
    texts = [*header, *metadata.keys(), *metadata.values()]
    return (bool(twice) or any("\0" in text for text in texts) or any(isinstance(entry, list) for entry in header.values())
            or any(isinstance(entry["dtype"], dict) or max(entry["shape"], default=0) >= 2**63 for entry in header.values()))


def refused_on_purpose():
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    for header in ['{"a":%s,"a":%s}' % (entry, entry), '{"__metadata__":{"a":"b","a":"c"}}', '{"a\\u0000b":%s}' % entry,
                   '{"__metadata__":{"a":"\\u0000"}}', '{"a":["U8",[0],[0,0]]}', one([2**63, 0], 0, 0),
                   '{"a":{"dtype":{"U8":null},"shape":[0],"data_offsets":[0,0]}}']:
        yield pack(header)


def mutated(seeds, count):
    rng = random.Random(5)
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[at] = data[rng.randrange(len(data))]
            elif kind == 2:
                data[at:at] = bytes([rng.choice(b'0123456789[]{},:"\\eE.- nultrfas')])
            else:
                del data[at]
            if kind > 1 and data and rng.random() < 0.9 and len(data) > 8:  # keep the length right
                length = struct.unpack("<Q", data[:8])[0] + (1 if kind == 2 else -1)
                data[:8] = struct.pack("<Q", max(length, 0) % 2**64)
            if len(data) == 0:
                break
        yield bytes(data)


def reference_tensors():
    values = torch.arange(6).reshape(2, 3)
    tensors = {str(dtype).removeprefix("torch."): values.to(dtype)
               for dtype in (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16,
                             torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.float8_e4m3fn,
                             torch.float8_e5m2)}
    return {**tensors, "scalar": torch.tensor(1.5), "empty": torch.zeros(2, 0, 3), "na\u00efve \"name\"": torch.ones(1)}


def conv_bn():
    """A module whose values say where they are; see file_of_pytorch in test_weights.c."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.BatchNorm2d(2))
    o, i, h, w = torch.meshgrid(*(torch.arange(size) for size in (2, 3, 3, 3)), indexing="ij")
    state = module.state_dict()
    state["0.weight"] = (1000 * o + 100 * i + 10 * h + w).float()
    for value, name in enumerate(("0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"), start=1):
        state[name] = torch.tensor([value, value + 0.5])
    return module, state


def converted():
    """Values in each floating type, and what PyTorch's load_state_dict() makes of them in single and double precision; see
    types_of_pytorch in test_weights.c."""
    odd = [0.0, -0.0, 1.0, -1.5, 1 / 3, 2.0**-24, 3 * 2.0**-24, 2.0**-14, 2.0**-133, 65504.0, 65519.0, 65520.0, 3.4e38,
           float("inf"), float("-inf"), float("nan"), 1 + 2.0**-24, 1 + 3 * 2.0**-24, 1 + 2.0**-24 + 2.0**-52, 1e-40,
           2.0**-149, 2.0**-150, 2.0**-150 + 2.0**-190, 3.4028235677973366e38, 3.4028235677973362e38, 1e39, -1e300, 1e-300]
    values = torch.tensor(odd, dtype=torch.float64)
    found = {"of_" + str(dtype).removeprefix("torch."): values.to(dtype)
             for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)}
    tensors = dict(found)
    for word, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        module = torch.nn.Module()
        for name in found:
            module.register_parameter(name, torch.nn.Parameter(torch.zeros(len(odd), dtype=dtype)))
        module.load_state_dict(found)
        tensors.update({f"{name}.{word}": value for name, value in module.state_dict().items()})
    return tensors


def compare(fasttrain):
    agreed = stricter = failures = 0
    seeds = [pack({**one([2], 0, 2), "__metadata__": {"k": "v\u00e9"}}, b"12"), (DATA / "reference.safetensors").read_bytes(),
             pack({"x.y": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
                   "z": {"dtype": "F4", "shape": [4], "data_offsets": [8, 10]}}, bytes(10))]
    for data in refused_on_purpose():
        assert isinstance(reference(data), dict) and is_stricter(data, fasttrain.parse(data)), data
    for data in [*seeds, *corpus(), *mutated(seeds, 100000)]:
        ours, theirs = fasttrain.parse(data), reference(data)
        if ours == theirs:
            agreed += 1
        elif is_stricter(data, ours):
            stricter += 1
        else:
            failures += 1
            print("DIFFERENT", data[:200], "\n  fasttrain", ours, "\n  reference", theirs)
    print(f"reading: {agreed} files agree, {stricter} are refused on purpose, {failures} differ")
    return failures


def compare_written(fasttrain, folder):
    """Our bytes are the reference's (with one metadata pair at most: it does not fix the order of more)."""
    failures = 0
    path = folder / "ours.safetensors"
    chosen = {name: tensor for name, tensor in reference_tensors().items() if tensor.dtype in DTYPES}
    for tensors in ({}, chosen, {"attn.0": torch.arange(6.0).reshape(1, 2, 3)}):
        for metadata in ({}, {"format": "pt"}, {"na\u00efve\n\x01\x7f/": "\"\\\b\f\t\u2028\U0001f600"}):
            fasttrain.write(path, tensors, metadata)
            if path.read_bytes() != safetensors.torch.save(tensors, metadata or None):
                failures += 1
                print("DIFFERENT bytes for", list(tensors), metadata)
            read = safetensors.torch.load_file(path)
            assert read.keys() == tensors.keys() and all(torch.equal(read[name], tensors[name]) for name in tensors)
    module, state = conv_bn()
    fasttrain.write(path, {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}, {})
    module.load_state_dict(safetensors.torch.load_file(path))  # strict; PyTorch does without its counter
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())
    print(f"writing: {failures} differ")
    return failures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--library")
    arguments = parser.parse_args()
    if arguments.write:
        DATA.mkdir(exist_ok=True)
        safetensors.torch.save_file(reference_tensors(), DATA / "reference.safetensors",
                                    {"format": "pt", "na\u00efve\n": "\"\\\x01\U0001f600"})
        safetensors.torch.save_file(conv_bn()[1], DATA / "conv_bn.safetensors")
        safetensors.torch.save_file(converted(), DATA / "types.safetensors")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        library = arguments.library
        if not library:
            library = f"{folder}/libfasttrain.so"
            subprocess.run(["cc", "-std=c11", "-O1", "-shared", "-fPIC", "-DFASTTRAIN_IMPLEMENTATION", "-x", "c",
                            f"{ROOT}/fasttrain.h", "-o", library, "-lm", "-lpthread"], check=True)
        fasttrain = Fasttrain(library)
        failures = compare(fasttrain) + compare_written(fasttrain, pathlib.Path(folder))
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
