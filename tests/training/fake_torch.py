"""A hand-written module with the interface of a generated Torch module: softmax regression."""

import torch

SPEC = {"name": "fake", "layers": [{"name": "fc1", "units": 3}]}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, inputs):
        return self.fc1(inputs)


def initialize(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "fc1.weight": 0.1 * torch.randn(3, 5, dtype=torch.float64, generator=generator),
        "fc1.bias": torch.zeros(3, dtype=torch.float64),
    }


def predict(params, inputs):
    return inputs @ params["fc1.weight"].T + params["fc1.bias"]


def loss(params, inputs, targets):
    return torch.nn.functional.cross_entropy(predict(params, inputs), targets)


class Optimizer(torch.optim.Optimizer):
    """Gradient descent with momentum, whose update also depends on how many steps there were."""

    def __init__(self, model, lr=0.05, betas=(0.5, 0.01)):
        if lr <= 0:
            raise ValueError(f"lr: expected a positive number, got {lr}")
        self.model = model
        super().__init__(model.parameters(), {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, inputs, targets):
        with torch.enable_grad():
            objective = torch.nn.functional.cross_entropy(self.model(inputs), targets)
            gradients = torch.autograd.grad(objective, list(self.model.parameters()))
        group = self.param_groups[0]
        for parameter, gradient in zip(group["params"], gradients, strict=True):
            state = self.state[parameter]
            if not state:
                state["step"], state["velocity"] = 0, torch.zeros_like(parameter)
            state["velocity"].mul_(group["betas"][0]).add_(gradient)
            parameter.sub_(group["lr"] / (1 + group["betas"][1] * state["step"]) * state["velocity"])
            state["step"] += 1
        return objective.detach()
