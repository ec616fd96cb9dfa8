"""Values for weights and inputs that tests/support/model_zoo.c computes alike, to the bit: functions of a name and an
element's index in the file's layout (C order; OIHW for convolutions)."""

import math

import numpy as np

_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def hash_name(name):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def bits(name, count):
    """The first `count` outputs of splitmix64 whose state is the hash of the name."""
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(hash_name(name))
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MULTIPLIERS[0])
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MULTIPLIERS[1])
        return z ^ (z >> np.uint64(31))


def uniform(name, count):
    """Numbers from 0 to 1, multiples of 2^-24, in double precision."""
    return (bits(name, count) >> np.uint64(40)).astype(np.float64) * 2.0**-24


def signs(name, count):
    """-1 or 1, by the lowest bit."""
    return (bits(name, count) & np.uint64(1)).astype(np.float64) * 2.0 - 1.0


def _spread(u, low, width):
    """low + width * u. Both are rounded to f32 first: the product is exact then, and the sum rounds once."""
    return np.float64(np.float32(low)) + np.float64(np.float32(width)) * u


def weight_value(name, shape, is_norm, bias, positive):
    """The value of a parameter or buffer. `is_norm`: it is a normalization's, whose weight is a vector too; the size of
    its bias is 3/4 of `bias` to `bias`, its sign `positive` or either one."""
    count = math.prod(shape)
    u = uniform(name, count)
    if name.endswith("running_var"):
        value = _spread(u, 0.5, 1.0)
    elif name.endswith("running_mean"):
        value = _spread(u, -0.1, 0.2)
    elif len(shape) >= 2:  # variance 2 / fan_in
        bound = math.sqrt(6.0 * shape[0] / count)
        value = _spread(u, -bound, 2.0 * bound)
    elif is_norm and name.endswith("weight"):
        value = _spread(u, 0.5, 0.5)
    elif is_norm and positive:
        value = _spread(u, 0.75 * bias, 0.25 * bias)
    elif is_norm:
        value = np.where(u < 0.5, _spread(u, -0.75 * bias, -0.5 * bias), _spread(u, 0.5 * bias, 0.5 * bias))
    else:
        value = _spread(u, -0.1, 0.2)
    return value.astype(np.float32).reshape(shape)


def weights(shapes, bias, positive):
    """Values for a dict of name to shape."""

    def is_norm(name):
        layer = name.rpartition(".")[0]
        return len(shapes.get(layer + ".weight", (0, 0))) == 1
    return {name: weight_value(name, tuple(shape), is_norm(name), bias, positive) for name, shape in shapes.items()}


def image(name, shape):
    """Uniform with mean 0 and variance 1."""
    bound = math.sqrt(3.0)
    return _spread(uniform(name, math.prod(shape)), -bound, 2.0 * bound).astype(np.float32).reshape(shape)


def integers(name, shape, limit):
    """From 0 to limit - 1."""
    return np.floor(uniform(name, math.prod(shape)) * limit).astype(np.int32).reshape(shape)
