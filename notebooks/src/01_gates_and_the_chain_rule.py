# %% [markdown]
# # 1. Gates and the chain rule
#
# A network learns from one number for each of its weights: how much would the loss change if this weight changed a
# little? Backpropagation computes all of these numbers in one walk from the end to the start. This lesson takes the
# walk through circuits so small that every number fits on a napkin.
#
# **Goals.** After this lesson you can
# - compute the gradients of a small circuit by hand: *upstream times local is downstream*;
# - name what an add, a copy, a multiply and a max do to a gradient;
# - check any gradient numerically;
# - say why a gradient has the shape of its variable, and derive dW of a matrix product from the shapes alone.
#
# **Time needed.** About 40 minutes. It runs in a few seconds.

# %%
import matplotlib.pyplot as plt
import numpy as np

from backhand.inspection import check_gradients
from backhand.layers import (
    Add,
    AddConstant,
    Copy,
    Exp,
    Identity,
    Linear,
    Max,
    Multiply,
    MultiplyConstant,
    Negate,
    Reciprocal,
    ReLU,
    Sigmoid,
)
from backhand.models import Parallel, Sequential


def show(values):
    """Numbers, in any nesting of tuples, with four decimals."""
    if isinstance(values, tuple):
        return "(" + ", ".join(show(value) for value in values) + ")"
    return f"{float(values):.4f}".rstrip("0").rstrip(".")


# %% [markdown]
# ## A gate
#
# A gate knows two things: how to compute its output, and its **local gradient**, how the output changes with each of
# its inputs. It does not know what the rest of the circuit is. For a product $f = xy$ the local gradients are
#
# $$\frac{\partial f}{\partial x} = y, \qquad \frac{\partial f}{\partial y} = x.$$
#
# `forward` computes the output and remembers what `backward` will need. `backward` takes the gradient of the final
# result by this gate's output (the **upstream**) and returns the gradients by its inputs (the **downstream**).

# %%
gate = Multiply()
print("x y =", gate.forward(-2.0, 5.0))
print("downstream for upstream 1:", show(gate.backward(1.0)))

# %% [markdown]
# ## First circuit: (x + y) z
#
# Forward at $x=-2,\ y=5,\ z=-4$, with a name for the intermediate result: $q = x + y$, then $f = qz$.
# Backward, from the end. The gradient of $f$ by itself is 1. At each gate, multiply the upstream by the local gradient.

# %%
x, y, z = -2.0, 5.0, -4.0

q = x + y
f = q * z

df = 1.0
dq = df * z  # local gradient of q z by q is z
dz = df * q  # ... and by z it is q
dx = dq * 1  # local gradient of x + y by x is 1
dy = dq * 1

print(f"f = {f:g}    dx = {dx:g}  dy = {dy:g}  dz = {dz:g}")

# %% [markdown]
# The same circuit made of gates. `Sequential` puts gates in series. `Parallel` puts them side by side, one for each
# input, and gives the tuple of their outputs; an input that is itself a tuple is spread over its gate. So the inputs
# are nested in the way they are routed: `((x, y), z)`. Their gradients come back in the same nesting.

# %%
circuit = Sequential(Parallel(Add(), Identity()), Multiply())
print("f        ", show(circuit.forward((x, y), z)))
print("gradients", show(circuit.backward(1.0)))

# %% [markdown]
# `Sequential.backward` does nothing but call its gates in reverse order, handing each downstream on as the next
# upstream. Here is that loop with a print in it.


# %%
def backward_step_by_step(circuit, dout=1.0):
    for gate in reversed(list(circuit)):
        upstream, dout = dout, gate.backward(dout)
        gates = " | ".join(type(each).__name__ for each in gate.children()) or type(gate).__name__
        print(f"{gates}\n    upstream {show(upstream)}  ->  downstream {show(dout)}")
    return dout


f = circuit.forward((x, y), z)
(dx, dy), dz = backward_step_by_step(circuit)
assert (f, dx, dy, dz) == (-12, -4, -4, 3)

# %% [markdown]
# ## Never trust a gradient: check it
#
# A gradient says what happens when an input changes a little. So change it a little and look. The **central
# difference** is accurate to order $h^2$:
#
# $$\frac{\partial f}{\partial x} \approx \frac{f(x+h) - f(x-h)}{2h}$$


# %%
def numeric_gradient(f, *values, h=1e-5):
    """The derivative of f by each of its arguments, by central differences."""
    gradient = []
    for i in range(len(values)):
        above = [value + h * (i == j) for j, value in enumerate(values)]
        below = [value - h * (i == j) for j, value in enumerate(values)]
        gradient.append((f(*above) - f(*below)) / (2 * h))
    return tuple(gradient)


print("numeric ", show(numeric_gradient(lambda x, y, z: (x + y) * z, -2.0, 5.0, -4.0)))
print("analytic", show((dx, dy, dz)))

# %% [markdown]
# The toolkit has the same check for any layer, and a circuit is a layer. It uses a random upstream gradient, so the
# numbers below are not ours; what matters is that the two columns agree. Below 1e-7 is good, above 1e-2 is wrong.

# %%
report = check_gradients(circuit, (np.array(-2.0), np.array(5.0)), np.array(-4.0))
print(report)
assert report.ok

# %% [markdown]
# ## Second circuit: the sigmoid neuron
#
# $$f = \sigma(w_0 x_0 + w_1 x_1 + w_2), \qquad \sigma(s) = \frac{1}{1 + e^{-s}}$$
#
# The sigmoid is a chain of four gates: negate, exponential, plus one, one over. Every one of them has a local gradient
# that everybody knows.

# %%
w0, x0, w1, x1, w2 = 2.0, -1.0, -3.0, -2.0, -3.0

neuron = Sequential(
    Parallel(Multiply(), Multiply(), Identity()),
    Add(),
    Negate(),
    Exp(),
    AddConstant(1.0),
    Reciprocal(),
)
f = neuron.forward((w0, x0), (w1, x1), w2)
print("f =", show(f), "\n")
(dw0, dx0), (dw1, dx1), dw2 = backward_step_by_step(neuron)

np.testing.assert_allclose(f, 0.7311, atol=5e-5)
np.testing.assert_allclose([dw0, dw1, dw2], [-0.1966, -0.3932, 0.1966], atol=5e-5)
np.testing.assert_allclose([dx0, dx1], [0.3932, -0.5898], atol=5e-5)

# %% [markdown]
# Now the middle of it with the local gradients written out. Each line is one use of the chain rule. `value` is what
# goes into the gate.

# %%
chain = [
    ("negate", lambda s: -s, lambda s: -1.0),
    ("exp", np.exp, np.exp),
    ("plus 1", lambda s: s + 1, lambda s: 1.0),
    ("1 / s", lambda s: 1 / s, lambda s: -1 / s**2),
]
inputs = [w0 * x0 + w1 * x1 + w2]
for _, function, _ in chain:
    inputs.append(function(inputs[-1]))

print(f"{'gate':<8}{'value':>9}{'upstream':>11}   x {'local':>8}   = {'downstream':>10}")
upstream = 1.0
for (name, _, local), value in reversed(list(zip(chain, inputs, strict=False))):
    downstream = upstream * local(value)
    print(f"{name:<8}{value:>9.4f}{upstream:>11.4f}   x {local(value):>8.4f}   = {downstream:>10.4f}")
    upstream = downstream

assert np.isclose(upstream, dw2)  # w2 goes straight into the sum, whose local gradient is 1

# %%
print("analytic", show((dw0, dx0, dw1, dx1, dw2)))
formula = lambda w0, x0, w1, x1, w2: 1 / (1 + np.exp(-(w0 * x0 + w1 * x1 + w2)))  # noqa: E731
print("numeric ", show(numeric_gradient(formula, w0, x0, w1, x1, w2)))

# %% [markdown]
# ### Four gates or one
#
# Multiply the four local gradients and simplify, and the whole chain has a derivative of its own:
#
# $$\sigma'(s) = \sigma(s)\,(1 - \sigma(s))$$
#
# so `Sigmoid` can be one gate that remembers nothing but its output. How finely a circuit is cut into gates is a matter
# of convenience: the gradient is the same.

# %%
s = np.linspace(-6, 6, 121)
one = Sigmoid()
four = Sequential(Negate(), Exp(), AddConstant(1.0), Reciprocal())
dout = np.random.default_rng(0).standard_normal(s.shape)

np.testing.assert_allclose(one.forward(s), four.forward(s), rtol=1e-12)
np.testing.assert_allclose(one.backward(dout), four.backward(dout), rtol=1e-9, atol=1e-15)
print("the same values and the same gradients at", s.size, "points")
print("at s = 1:", show(0.7310586 * (1 - 0.7310586)), "which is dw2 above")

# %% [markdown]
# Drawn together: where the sigmoid is flat, its local gradient is nearly 0, and whatever comes from upstream is lost.

# %%
value = one.forward(s)
local = one.backward(np.ones_like(s))
_, ax = plt.subplots(figsize=(6, 3.4), layout="constrained")
ax.plot(s, value, color="#009E73", label="value")
ax.plot(s, local, color="#D55E00", linestyle="--", label="local gradient")
ax.set(xlabel="s", title="At most a quarter of the gradient gets through")
_ = ax.legend()

# %% [markdown]
# ## Four patterns
#
# Four gates treat a gradient in ways that are worth knowing by heart. Here each gets inputs 3 and -4, and an upstream
# of 2.
#
# | gate | pattern | downstream |
# |---|---|---|
# | `Add` | distributes | every input gets the upstream, whatever the values were |
# | `Copy` | adds | what comes back along the branches is summed |
# | `Multiply` | swaps | each input gets the upstream times the *other* input |
# | `Max` | routes | the larger input gets all of it, the other one nothing |

# %%
for gate in (Add(), Multiply(), Max()):
    gate.forward(3.0, -4.0)
    print(f"{type(gate).__name__:<9} upstream 2          downstream {show(gate.backward(2.0))}")
gate = Copy()
gate.forward(3.0)
print(f"{type(gate).__name__:<9} upstream 2 and 0.5  downstream {show(gate.backward((2.0, 0.5)))}")

# %% [markdown]
# A copy is needed wherever a value is used twice, and it is why gradients **add**. In $f = x \cdot x$ the value $x$
# goes to both inputs of one product. The product swaps, and hands $x$ to each of them; the copy adds: $2x$.

# %%
square = Sequential(Copy(), Multiply())
print("f =", show(square.forward(3.0)))
dx = backward_step_by_step(square)
assert dx == 6

# %% [markdown]
# ## Third circuit: all patterns together
#
# $$f = 2\,(xy + \max(z, w)) \qquad \text{at } x=3,\ y=-4,\ z=2,\ w=-1$$
#
# Try it on paper first.

# %%
circuit = Sequential(Parallel(Multiply(), Max()), Add(), MultiplyConstant(2.0))
f = circuit.forward((3.0, -4.0), (2.0, -1.0))
print("f =", show(f), "\n")
(dx, dy), (dz, dw) = backward_step_by_step(circuit)
assert (f, dx, dy, dz, dw) == (-20, -8, 6, 2, 0)

formula = lambda x, y, z, w: 2 * (x * y + max(z, w))  # noqa: E731
print("\nnumeric ", show(numeric_gradient(formula, 3.0, -4.0, 2.0, -1.0)))
print("analytic", show((dx, dy, dz, dw)))

# %% [markdown]
# Read it from the end: the constant doubles the 1; the sum hands 2 to both sides; the product swaps 3 and -4, times 2;
# the maximum sends all of its 2 to $z$, and $w$, which was not chosen, gets 0.
#
# ## From numbers to arrays
#
# Nothing changes when a wire carries an array: the same gates work on them, entry by entry. One rule keeps everything
# straight:
#
# > **A gradient has the shape of its variable.** There is one derivative for each of its entries.
#
# Where broadcasting used a number many times, it was copied; so what comes back is added.

# %%
rng = np.random.default_rng(0)
a, b = rng.standard_normal((3, 4)), rng.standard_normal(4)  # b is used for each of the three rows
gate = Multiply()
out = gate.forward(a, b)
da, db = gate.backward(np.ones_like(out))
print("a", a.shape, " da", da.shape, "     b", b.shape, " db", db.shape)
np.testing.assert_allclose(db, a.sum(axis=0))

# %% [markdown]
# ### dW from the shapes alone
#
# The most important layer is a matrix product. With $N$ samples in the rows of $x$,
#
# $$y = x W^T, \qquad x: (N, D), \quad W: (M, D), \quad y: (N, M).$$
#
# The product swaps, so $dW$ must be made of the upstream $dy : (N, M)$ and the other input $x : (N, D)$, and it must
# come out as $(M, D)$. There is only one way to multiply them that fits, and it is the right one:
#
# $$dW = dy^T x : \ (M, N)(N, D) = (M, D), \qquad dx = dy\, W : \ (N, M)(M, D) = (N, D).$$

# %%
N, D, M = 5, 4, 3
x = rng.standard_normal((N, D))
layer = Linear(D, M, bias=False, rng=0, dtype=np.float64)
W = layer.weight.data
y = layer.forward(x)
dy = rng.standard_normal(y.shape)
dx = layer.backward(dy)

print("W", W.shape, " dW", layer.weight.grad.shape, "     x", x.shape, " dx", dx.shape)
np.testing.assert_allclose(layer.weight.grad, dy.T @ x)
np.testing.assert_allclose(dx, dy @ W)

report = check_gradients(layer, x)
print(report)
assert report.ok

# %% [markdown]
# ### The Jacobian that nobody builds
#
# Between two arrays the local gradient is a matrix, the **Jacobian**: one row for each output, one column for each
# input, and downstream = upstream times Jacobian. Each row can be had from `backward` with an upstream that is 1 at one
# output and 0 elsewhere. For `ReLU`, $y = \max(x, 0)$:

# %%
x = np.array([1.5, -0.3, 0.8, -2.0, 0.1])
relu = ReLU()
rows = []
for one_hot in np.eye(len(x)):
    relu.forward(x)
    rows.append(relu.backward(one_hot))
jacobian = np.array(rows)
print(jacobian.astype(int))

# %% [markdown]
# Each output depends on its own input only, so the matrix is diagonal, with 1 where $x > 0$ and 0 elsewhere. The whole
# product with it is: let the upstream through where $x > 0$. That is all the backward of `ReLU` does, and the matrix
# is never formed.

# %%
dout = rng.standard_normal(5)
relu.forward(x)
np.testing.assert_allclose(relu.backward(dout), dout @ jacobian)
np.testing.assert_allclose(dout @ jacobian, dout * (x > 0))

samples, features, size_of_float32 = 64, 4096, 4
entries = samples * features
print(f"a layer of {samples} x {features} numbers: the Jacobian needs {entries**2 * size_of_float32 / 2**30:.0f} GiB,")
print(f"the product with it {entries * size_of_float32 / 2**20:.0f} MiB")

# %% [markdown]
# ## What to take along
#
# - Every gate multiplies the upstream by its local gradient, and hands the downstream on. The order of the backward is
#   the reverse of the order of the forward. That is all of backpropagation.
# - Add distributes, copy adds, multiply swaps, max routes.
# - A gradient has the shape of its variable, and the shapes alone tell how a matrix product goes backwards.
# - Local gradients are applied, never built.
# - Check every gradient with central differences.
#
# **To try.** Build $f = (a + b)(c + d)$ from gates, predict its four gradients at $a=1,\ b=2,\ c=-3,\ d=1$, and check
# them. At which inputs does the maximum gate have no derivative, and what does `check_gradients` say there?
#
# The next lesson puts `Linear`, `ReLU` and a loss in a row, and trains them.
