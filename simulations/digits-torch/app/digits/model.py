"""A network of some ten thousand weights, and how one site trains and judges it."""

import torch
from torch import nn

# Ten sites share one machine in a simulation, and this network is too small to gain from threads.
torch.set_num_threads(1)


def new(seed):
    """Build the network with weights that follow from the seed."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def train(network, images, labels, epochs, batch_size, learning_rate, momentum, seed):
    """Train in place by stochastic gradient descent with momentum, in an order that follows from the seed.

    The step is written out because torch.optim imports torch's compiler: a second and 140 MB for each of
    ten sites.
    """
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    order = torch.Generator().manual_seed(seed)
    velocities = [torch.zeros_like(parameter) for parameter in network.parameters()]
    network.train()
    total = 0.0
    for _ in range(epochs):
        total = 0.0
        for batch in torch.randperm(len(labels), generator=order).split(batch_size):
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            network.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter, velocity in zip(network.parameters(), velocities, strict=True):
                    velocity.mul_(momentum).add_(parameter.grad)
                    parameter.sub_(learning_rate * velocity)
            total += loss.item() * len(batch)
    return total / len(labels)


@torch.no_grad()
def evaluate(network, images, labels):
    """Return loss and accuracy."""
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    network.eval()
    scores = network(images)
    return {
        "loss": nn.functional.cross_entropy(scores, labels).item(),
        "accuracy": (scores.argmax(1) == labels).float().mean().item(),
    }
