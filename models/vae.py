"""The variational autoencoder: the code is a cloud, and a point of it is enough to draw the picture again."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from backhand.layers.arguments import whole
from backhand.layers.base import Layer
from backhand.layers.linear import Linear
from backhand.layers.parameter import Array
from backhand.layers.rectifiers import ReLU


class Reparameterize(Layer):
    """A point drawn from a normal distribution, in such a way that its mean and variance have gradients.

        z = mu + e^(logvar / 2) eps,    eps ~ N(0, 1)
        dmu = dz        dlogvar = dz eps e^(logvar / 2) / 2

    mu, logvar, z : one shape, any

    Whatever eps was, it is data: z is a smooth function of the other two. It draws in eval mode too.
    Kingma & Welling 2013, arXiv:1312.6114, section 2.4
    """

    def __init__(self, *, rng: np.random.Generator | int | None = None) -> None:
        self.rng = np.random.default_rng(rng)

    def forward(self, mu: ArrayLike, logvar: ArrayLike) -> Array:
        mu = self.input(mu)
        logvar = self.input(logvar, mu.dtype)
        if mu.shape != logvar.shape:
            self.reject("mu and logvar of one shape", f"{mu.shape} and {logvar.shape}")
        # drawn in float32 whatever the dtype, so that a seed means one point
        noise = self.rng.standard_normal(mu.shape, np.float32).astype(mu.dtype, copy=False)
        noise = noise * np.exp(logvar / 2)
        z = mu + noise
        self.save(noise, out=z)
        return z

    def backward(self, dout: Any) -> tuple[Array, Array]:
        dz = self.upstream(dout)
        (noise,) = self.saved()
        return dz.copy(), dz * noise / 2  # a copy: what is handed on is nobody else's


class VAE(Layer):
    """An encoder that says where the code may be, a point drawn there, and a decoder.

        h = relu(fc1(x))        mu = fc21(h),    logvar = fc22(h)
        z = mu + e^(logvar / 2) eps        logits = fc4(relu(fc3(z)))

        name    layer       VAE(): output    parameters
        fc1     Linear      (400,)              314,000
        fc21    Linear      (20,)                 8,020
        fc22    Linear      (20,)                 8,020
        fc3     Linear      (400,)                8,400
        fc4     Linear      (784,)              314,384      652,824 in all

    x : (N, ...), `size` numbers from 0 to 1 each      Returns (logits, mu, logvar): logits in the shape of x
    size, hidden, code : the widths      rng : of the weights, and of eps

    The loss is ELBOLoss, which takes the three. Backward visits h twice, from mu and from logvar: the gradients add.
    Kingma & Welling 2013, arXiv:1312.6114, appendix C.1; sizes and names are those of pytorch/examples
    """

    def __init__(
        self,
        size: int = 784,
        hidden: int = 400,
        code: int = 20,
        *,
        rng: np.random.Generator | int | None = None,
        dtype: DTypeLike = np.float32,
    ) -> None:
        self.size = whole(self, "size", size)
        self.hidden = whole(self, "hidden", hidden)
        self.code = whole(self, "code", code)
        rng = np.random.default_rng(rng)
        self.fc1 = Linear(size, hidden, rng=rng, dtype=dtype)
        self.fc21 = Linear(hidden, code, rng=rng, dtype=dtype)
        self.fc22 = Linear(hidden, code, rng=rng, dtype=dtype)
        self.fc3 = Linear(code, hidden, rng=rng, dtype=dtype)
        self.fc4 = Linear(hidden, size, rng=rng, dtype=dtype)
        self.relu = ReLU()
        self.draw = Reparameterize(rng=rng)

    def encode(self, x: ArrayLike) -> tuple[Array, Array]:
        """The mu and logvar (N, code) of each sample."""
        h = self.relu.forward(self.fc1.forward(x))
        return self.fc21.forward(h), self.fc22.forward(h)

    def decode(self, z: ArrayLike) -> Array:
        """The logits (N, size) for codes z (N, code)."""
        return self.fc4.forward(self.relu.forward(self.fc3.forward(z)))

    def forward(self, x: ArrayLike) -> tuple[Array, Array, Array]:
        x = self.input(x, self.fc1.weight.dtype)
        if x.ndim < 2 or int(np.prod(x.shape[1:])) != self.size:
            self.reject(f"x of shape (N, ...) with {self.size} numbers in a sample", x.shape)
        mu, logvar = self.encode(x.reshape(len(x), -1))
        logits = self.decode(self.draw.forward(mu, logvar)).reshape(x.shape)
        self.save(out=(logits, mu, logvar))
        return logits, mu, logvar

    def backward(self, dout: Any) -> Any:
        dlogits, dmu, dlogvar = self.upstream(dout)
        self.saved()
        dz = self.fc3.backward(self.relu.backward(self.fc4.backward(dlogits.reshape(len(dlogits), -1))))
        dmu_drawn, dlogvar_drawn = self.draw.backward(dz)
        dh = self.fc22.backward(dlogvar + dlogvar_drawn)
        dh = dh + self.fc21.backward(dmu + dmu_drawn)
        dx = self.fc1.backward(self.relu.backward(dh))
        return None if dx is None else dx.reshape(dlogits.shape)

    def input_requires_grad_(self, requires_grad: bool = True) -> VAE:
        super().input_requires_grad_(requires_grad)
        self.fc1.input_requires_grad_(requires_grad)
        return self
