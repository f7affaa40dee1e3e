"""Values and gradients of core/functions from jax in float64: python functions.py > functions.json (jax 0.10.2, numpy)."""
import json
import jax
import jax.numpy as jnp
import numpy as np

jax.config.update("jax_enable_x64", True)
rng = np.random.default_rng(13)
draw = lambda *shape, low=-2.0, high=2.0: np.round(rng.uniform(low, high, shape) * 64) / 64
spd = lambda n: (lambda x: x @ x.T + n * np.eye(n))(draw(n, n))
cases = {}


def case(name, f, *xs, **static):
    """y, and the gradient of Σ w·y for weights w by every float argument"""
    ys = f(*xs)
    ys = ys if isinstance(ys, (tuple, list)) else [ys]
    ys = [np.asarray(y) for y in ys]
    real = [i for i, y in enumerate(ys) if y.dtype.kind == "f"]
    at = [i for i, x in enumerate(xs) if np.asarray(x).dtype.kind == "f"]
    ws = [draw(*y.shape) for y in ys]
    entry = {"in": [pack(x) for x in xs], "y": [pack(y) for y in ys], "w": [pack(w) for w in ws], **static}
    if real and at:
        def loss(*fs):
            zs = list(xs)
            for i, v in zip(at, fs):
                zs[i] = v
            out = f(*zs)
            out = out if isinstance(out, (tuple, list)) else [out]
            return sum(jnp.sum(out[i] * ws[i]) for i in real)
        grads = jax.grad(loss, argnums=tuple(range(len(at))))(*[xs[i] for i in at])
        entry["g"] = [pack(g) for g in grads]
    cases.setdefault(name, []).append(entry)


def pack(x):
    x = np.asarray(x)
    kind = {"f": "f64", "i": "i32", "u": "u32", "b": "bool"}[x.dtype.kind]
    values = [float(v) if np.isfinite(v) else str(float(v)) for v in x.astype(np.float64).ravel()]
    return [kind, list(x.shape), values]


a, b = draw(3, 4), draw(4)
unit = draw(2, 5, low=-0.95, high=0.95)
for name in ["expm1", "sinh", "cosh", "tan"]:
    case(name, getattr(jnp, name), a * 0.7)
for name in ["arctan", "arcsin", "arccos"]:
    case(name.replace("arc", "a"), getattr(jnp, name), unit)
case("log1p", jnp.log1p, unit)
case("atan2", jnp.arctan2, a, b)
case("softplus", jax.nn.softplus, a * 5)
case("erfInv", jax.scipy.special.erfinv, unit)
case("relu", jax.nn.relu, np.array([-1.5, 0.0, 2.0]))
case("leakyRelu", lambda x: jax.nn.leaky_relu(x, 0.1), a)
case("elu", jax.nn.elu, a)
case("silu", jax.nn.silu, a)
case("logSigmoid", jax.nn.log_sigmoid, a * 5)
case("gelu", lambda x: jax.nn.gelu(x, approximate=False), a, form="erf")
case("gelu", lambda x: jax.nn.gelu(x, approximate=True), a, form="tanh")
pair = (np.array([1.0, 2.0, 3.0, np.nan]), np.array([2.0, 2.0, 2.0, 2.0]))
for name, f in [("greater", jnp.greater), ("lessEqual", jnp.less_equal), ("greaterEqual", jnp.greater_equal), ("notEqual", jnp.not_equal)]:
    case(name, f, *pair)
truth = (np.array([True, True, False, False]), np.array([True, False, True, False]))
case("logicalAnd", jnp.logical_and, *truth)
case("logicalOr", jnp.logical_or, *truth)
case("logicalXor", jnp.logical_xor, *truth)
case("where", jnp.where, truth[0], draw(4), draw(4))
odd = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0])
case("isNan", jnp.isnan, odd)
case("isInf", jnp.isinf, odd)
halves = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 2.25, -2.75])
case("ceil", jnp.ceil, halves)
case("round", jnp.round, halves)
case("trunc", jnp.trunc, halves)
case("sign", jnp.sign, np.array([-2.0, 0.0, 3.0]))
case("remainder", jnp.remainder, np.array([7, -7, 7, -7], np.int32), np.array([3, 3, -3, -3], np.int32))
case("remainder", jnp.remainder, a, draw(4, low=0.5))
for axis in [0, 1]:
    case("min", lambda x: jnp.min(x, axis), a, axis=axis)
    case("prod", lambda x: jnp.prod(x, axis), a, axis=axis)
    case("variance", lambda x: jnp.var(x, axis), a, axis=axis)
    case("std", lambda x: jnp.std(x, axis), a, axis=axis)
    case("norm", lambda x: jnp.linalg.norm(x, axis=axis), a, axis=axis)
    case("logsumexp", lambda x: jax.scipy.special.logsumexp(x, axis), a * 300, axis=axis)
    case("logSoftmax", lambda x: jax.nn.log_softmax(x, axis), a, axis=axis)
    case("argmax", lambda x: jnp.argmax(x, axis).astype(np.int32), np.array([[1.0, 3, 3], [np.nan, 2, 9]]), axis=axis)
    case("argmin", lambda x: jnp.argmin(x, axis).astype(np.int32), np.array([[1, 3, 1], [-(2**31), 2, 9]], np.int32), axis=axis)
    case("cumsum", lambda x: jnp.cumsum(x, axis), a, axis=axis)
    case("cumprod", lambda x: jnp.cumprod(x, axis), a, axis=axis)
    case("any", lambda x: jnp.any(x, axis), truth[0].reshape(2, 2), axis=axis)
    case("all", lambda x: jnp.all(x, axis), truth[0].reshape(2, 2), axis=axis)
    case("sort", lambda x: jnp.sort(x, axis), draw(6, 5), axis=axis)
    case("argsort", lambda x: jnp.argsort(x, axis).astype(np.int32), np.array([[3.0, 1, np.nan], [1, 1, 0], [np.inf, 1, -np.inf]]), axis=axis)
case("argsort", lambda x: jnp.argsort(x, 0).astype(np.int32), rng.integers(-3, 3, 23).astype(np.int32), axis=0)
case("topK", lambda x: jax.lax.top_k(x, 2), draw(3, 7))
case("crossEntropy", lambda x, y: -jax.nn.log_softmax(x)[jnp.arange(3), y], a, np.array([1, 0, 3], np.int32))
case("crossEntropy", lambda x, y: -jnp.sum(y * jax.nn.log_softmax(x), -1), a, np.array(jax.nn.softmax(draw(3, 4))))
for p, q in [((2, 3), (3, 4)), ((5, 2, 3), (3, 4)), ((5, 1, 2, 3), (4, 3, 2)), ((3,), (3, 2)), ((2, 3), (3,)), ((3,), (3,)), ((2, 3), (4, 3, 1))]:
    case("matmul", jnp.matmul, draw(*p), draw(*q))
for spec, shapes in [("bij,bjk->bik", [(2, 3, 2), (2, 2, 4)]), ("ij,kj,k->i", [(2, 3), (4, 3), (4,)]), ("ii->", [(3, 3)]), ("ii->i", [(3, 3)]),
                     ("ij->ji", [(2, 3)]), ("...i,...i->...", [(2, 3), (1, 3)]), ("i,j", [(2,), (3,)]), ("ij,jk", [(2, 3), (3, 2)]),
                     ("bhqd,bhkd->bhqk", [(2, 2, 3, 2), (2, 2, 4, 2)]), ("i...,i->...", [(2, 3, 2), (2,)]), ("ijk,jil->kl", [(2, 3, 2), (3, 2, 2)]), ("ij,ab->", [(2, 2), (2, 3)])]:
    case("einsum", lambda *xs: jnp.einsum(spec, *xs), *[draw(*s) for s in shapes], spec=spec)
case("outer", jnp.outer, draw(2), draw(3))
case("diag", jnp.diag, draw(3))
case("diagonalOf", lambda x: jnp.diagonal(x, axis1=-2, axis2=-1), draw(2, 3, 4))
case("tril", lambda x: jnp.tril(x, 1), draw(2, 3, 4), k=1)
case("triu", lambda x: jnp.triu(x, -1), draw(2, 3, 4), k=-1)
case("oneHot", lambda x: jax.nn.one_hot(x, 4), np.array([[0, 3], [4, -1]], np.int32))
case("split", lambda x: jnp.split(x, [1, 3], 1), draw(2, 5))
case("tile", lambda x: jnp.tile(x, (2, 1, 3)), draw(2, 2))
case("repeat", lambda x: jnp.repeat(x, 3, 1), draw(2, 2))
case("roll", lambda x: jnp.roll(x, -2, 1), draw(2, 5))
case("arange", lambda: jnp.arange(2.0, 8.0, 1.5))
case("linspace", lambda: jnp.linspace(-1, 1, 7))
case("eye", lambda: jnp.eye(3, 4, 1))
case("scatterSet", lambda x, i, r: jnp.asarray(x).at[i].set(r, mode="drop"), draw(4, 2), np.array([2, 7, 0], np.int32), draw(3, 2))
for start in [1, 9]:
    case("dynamicSlice", lambda x: jax.lax.dynamic_slice(x, (start, 1), (2, 2)), draw(5, 3), start=start)
    case("dynamicUpdateSlice", lambda x, p: jax.lax.dynamic_update_slice(x, p, (start, 1)), draw(5, 3), draw(2, 2), start=start)
window = dict(window=[2, 3], stride=[2, 1], pad=[[1, 0], [1, 1]])
reduce = lambda x, init, f, pad: jax.lax.reduce_window(x, init, f, (1, 2, 3, 1), (1, 2, 1, 1), ((0, 0), *pad, (0, 0)))
case("maxPool", lambda x: reduce(x, -jnp.inf, jax.lax.max, window["pad"]), draw(2, 5, 4, 2), **window)
case("averagePool", lambda x: reduce(x, 0.0, jax.lax.add, window["pad"]) / 6, draw(2, 5, 4, 2), countPadding=True, **window)
case("averagePool", lambda x: reduce(x, 0.0, jax.lax.add, window["pad"]) / reduce(jnp.ones_like(x), 0.0, jax.lax.add, window["pad"]), draw(2, 5, 4, 2), countPadding=False, **window)
conv = lambda x, w, s, p, d, g, spec: jax.lax.conv_general_dilated(x, w, s, p, rhs_dilation=d, feature_group_count=g, dimension_numbers=spec)
case("conv1d", lambda x, w: conv(x, w, [2], [(1, 2)], [3], 2, ("NWC", "WIO", "NWC")), draw(2, 9, 4), draw(3, 2, 2), stride=2, pad=[1, 2], dilation=3, groups=2)
case("conv", lambda x, w: conv(x, w, [1, 2], [(1, 0), (2, 2)], [2, 3], 1, ("NHWC", "HWIO", "NHWC")), draw(1, 6, 8, 2), draw(2, 3, 2, 2), stride=[1, 2], pad=[[1, 0], [2, 2]], dilation=[2, 3], groups=1)
case("cholesky", jnp.linalg.cholesky, spd(4))
low = np.tril(draw(2, 3, 3)) + 3 * np.eye(3)
solve = lambda x, y, lower, trans: jax.vmap(lambda p, q: jax.scipy.linalg.solve_triangular(p, q, lower=lower, trans=trans))(x, y)
case("triangularSolve", lambda x, y: solve(x, y, True, 0), low, draw(2, 3, 2), lower=True, transposed=False)
case("triangularSolve", lambda x, y: solve(x, y, True, 1), low, draw(2, 3, 2), lower=True, transposed=True)
case("triangularSolve", lambda x, y: solve(x, y, False, 0), np.swapaxes(low, 1, 2), draw(2, 3, 2), lower=False, transposed=False)
case("solve", jnp.linalg.solve, draw(4, 4) + 3 * np.eye(4), draw(4, 2))
case("inv", jnp.linalg.inv, draw(3, 3) + 3 * np.eye(3))
print(json.dumps(cases, separators=(",", ":")))
