# %% [markdown]
# # 2. A two-layer net that reads digits
#
# Linear, ReLU, Linear: enough to read handwritten digits. First a training loop in which every line is visible, then
# the same with the toolkit's `Trainer`.
#
# **Goals.** After this lesson you can
# - say what the loss must be before training, and use it as a first test;
# - check the gradient of a whole network, loss included;
# - write the training loop: forward, backward, update;
# - read a loss curve, and look at what the network gets wrong.
#
# **Time needed.** About 40 minutes. It runs in less than 30 seconds.

# %%
import copy

import matplotlib.pyplot as plt
import numpy as np

from backhand.datasets import load_digits
from backhand.inspection import check_gradients, plot_history, plot_loss_and_accuracy, summary
from backhand.layers import Flatten, Linear, ReLU
from backhand.losses import CrossEntropyLoss
from backhand.models import Sequential
from backhand.training import Adam, Trainer

# %% [markdown]
# ## The data
#
# 1,797 images of 8 x 8 pixels, from 0 (paper) to 1 (ink), in three parts. We learn from the first. We choose, say, a
# learning rate by looking at the second. The third is looked at once, at the end.

# %%
digits = load_digits()
(x_train, y_train), (x_val, y_val), (x_test, y_test) = digits.train, digits.validation, digits.test
for name, (x, y) in [("train", digits.train), ("validation", digits.validation), ("test", digits.test)]:
    print(f"{name:<11} x {x.shape} {x.dtype}   y {y.shape} {y.dtype}")


# %%
def draw_images(images, titles, cmap="gray_r", limit=1.0, low=0.0):
    """A row of small images, each with a line above it."""
    _, axes = plt.subplots(1, len(images), figsize=(9, 1.5), layout="constrained", squeeze=False)
    for ax, image, title in zip(axes[0], images, titles, strict=True):
        ax.imshow(image, cmap=cmap, vmin=low, vmax=limit)
        ax.set_title(title, fontsize="small")
        ax.axis("off")


draw_images(x_train[:10, 0], y_train[:10])

# %% [markdown]
# ## The network
#
# $$h = \max(0,\ x W_1^T + b_1), \qquad \text{scores} = h\, W_2^T + b_2$$
#
# The table shows what each layer gives, how many numbers it learns, and how many bytes it must keep from its forward
# for its backward: that memory is the price of the chain rule. (The second `Linear` needs its input, which is the
# output that `ReLU` keeps already: one array, counted once.)

# %%
net = Sequential(Flatten(), Linear(64, 100, rng=0), ReLU(), Linear(100, 10, rng=1))
loss = CrossEntropyLoss()
print(summary(net, (64, 1, 8, 8)))

# %% [markdown]
# ## First test: the loss at chance
#
# The loss is $-\log p(\text{right digit})$, on average. A network that knows nothing gives each of the ten digits about
# the same probability, so its loss must be close to $-\log \frac{1}{10} = \log 10 = 2.303$. If it is not, something is
# wrong before training has begun.

# %%
at_chance = loss.forward(net.forward(x_train), y_train)
print(f"loss before training {at_chance:.3f}     log 10 = {np.log(10):.3f}")
assert abs(at_chance - np.log(10)) < 0.1

net.zero_grad()  # those forwards had no backward: drop what they saved
loss.zero_grad()

# %% [markdown]
# ## Second test: the gradients
#
# `check_gradients` compares the network's backward with central differences, in float64 and on a copy: all parameters,
# and the gradient by the image.

# %%
report = check_gradients(net, x_train[:4])
print(report)
assert report.ok

# %% [markdown]
# That leaves the loss. So here is the whole chain, from the image to the one number, by hand: change one weight, watch
# the loss. Backward starts at the loss, whose gradient by itself is 1, and walks to the front.

# %%
wide = copy.deepcopy(net).astype(np.float64)
x, y = x_train[:8], y_train[:8]
loss.forward(wide.forward(x), y)
wide.backward(loss.backward())

rng = np.random.default_rng(0)
h = 1e-5
print(f"{'weight':<18}{'analytic':>12}{'numeric':>12}")
for name, parameter in wide.named_parameters():
    analytic = parameter.grad
    for flat in rng.choice(np.flatnonzero(analytic), 2, replace=False):
        at = tuple(int(i) for i in np.unravel_index(flat, parameter.shape))
        value = parameter.data[at]
        parameter.data[at] = value + h
        above = loss.forward(wide.forward(x), y)
        parameter.data[at] = value - h
        below = loss.forward(wide.forward(x), y)
        parameter.data[at] = value
        numeric = (above - below) / (2 * h)
        print(f"{name + str(list(at)):<18}{analytic[at]:>12.6f}{numeric:>12.6f}")
        assert abs(analytic[at] - numeric) < 1e-6 * max(1.0, abs(numeric))
loss.zero_grad()

# %% [markdown]
# ## The training loop
#
# Take a few images (a batch). Forward: how bad is it? Backward: which way is worse, for every weight? Step the other
# way. Each pass over all images, in a new random order, is an epoch.
#
# The order of the lines matters in one place: gradients *add* in `parameter.grad`, so they are set to zero before the
# forward of each batch.


# %%
def measure(x, y):
    """Loss and accuracy, with nothing saved and nothing learned."""
    net.eval()
    loss.eval()
    scores = net.forward(x)
    result = loss.forward(scores, y), float(np.mean(scores.argmax(axis=1) == y))
    net.train()
    loss.train()
    return result


learning_rate, batch_size, epochs = 0.2, 32, 30
rng = np.random.default_rng(0)
by_hand = {"batch_loss": [], "loss": [], "accuracy": [], "val_loss": [], "val_accuracy": []}

for epoch in range(1, epochs + 1):
    order = rng.permutation(len(x_train))
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]

        net.zero_grad()
        scores = net.forward(x_train[batch])
        by_hand["batch_loss"].append(loss.forward(scores, y_train[batch]))

        dscores = loss.backward()
        net.backward(dscores)

        for parameter in net.parameters():
            parameter.data -= learning_rate * parameter.grad

    for prefix, (x, y) in [("", digits.train), ("val_", digits.validation)]:
        value, accuracy = measure(x, y)
        by_hand[f"{prefix}loss"].append(value)
        by_hand[f"{prefix}accuracy"].append(accuracy)
    if epoch % 5 == 0:
        line = "  ".join(f"{name} {values[-1]:.3f}" for name, values in by_hand.items() if name != "batch_loss")
        print(f"epoch {epoch:>2}  {line}")

# %% [markdown]
# ## The loss curve
#
# Faint: the loss of each batch, just before its update. It starts at chance. The two thick lines part where the network
# begins to learn its training images by heart rather than what a digit looks like; the ring marks the epoch with the
# lowest validation loss.

# %%
_ = plot_loss_and_accuracy(by_hand, classes=10, log=True)

# %% [markdown]
# ## The test
#
# Once, at the end, on images that had no part in any decision.

# %%
test_loss, test_accuracy = measure(x_test, y_test)
print(f"test loss {test_loss:.3f}, test accuracy {test_accuracy:.1%}")
assert test_accuracy > 0.94

# %% [markdown]
# ## What it gets wrong
#
# Numbers say how often, pictures say why. Above each image: the right digit, and what the network saw.

# %%
net.eval()
predicted = net.forward(x_test).argmax(axis=1)
net.train()
wrong = np.flatnonzero(predicted != y_test)[:10]
print(len(np.flatnonzero(predicted != y_test)), "of", len(y_test), "wrong")
if len(wrong):
    draw_images(x_test[wrong, 0], [f"{y_test[i]}, saw {predicted[i]}" for i in wrong])

# %% [markdown]
# ## What it has learned to look for
#
# Each row of $W_1$ holds one number for each pixel: an image. Red is ink that excites the hidden unit, blue is ink that
# calms it. These are the ten units with the largest weights. They look for strokes, in some places and not in others.

# %%
weights = net[1].weight.data
strongest = np.argsort(-np.linalg.norm(weights, axis=1))[:10]
draw_images(
    weights[strongest].reshape(-1, 8, 8),
    [f"unit {i}" for i in strongest],
    cmap="RdBu_r",
    limit=np.abs(weights[strongest]).max(),
    low=-np.abs(weights[strongest]).max(),
)

# %% [markdown]
# ## The same with the Trainer
#
# The loop above is what `Trainer.fit` does, with measuring, printing, and stopping when the loss is no longer a number.
# `Adam` takes the place of our one-line update.

# %%
model = Sequential(Flatten(), Linear(64, 100, rng=0), ReLU(), Linear(100, 10, rng=1))
trainer = Trainer(model, CrossEntropyLoss(), Adam(model.parameters(), lr=1e-3), seed=0)
history = trainer.fit(digits.train, digits.validation, epochs=30, batch_size=32)
result = trainer.evaluate(digits.test)
print(f"test loss {result['loss']:.3f}, test accuracy {result['accuracy']:.1%}")
assert result["accuracy"] > 0.94

# %%
_ = plot_history([by_hand, history], labels=["by hand", "Adam"], chance=np.log(10), log=True)

# %% [markdown]
# ## What to take along
#
# - Before training, the loss is $\log C$ for $C$ classes. Check it.
# - A whole network is checked like a single gate: by central differences.
# - Training is four lines: forward, loss, backward, update.
# - The training loss says whether it learns, the validation loss whether it learns the right thing.
#
# **To try.** Set the learning rate to 5, then to 0.001, and look at the loss curve. Leave out `net.zero_grad()`.
# Initialise both weights with zeros: what is the loss, and which gradients are zero?
