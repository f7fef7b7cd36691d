"""Train a Lightning module with a second-order optimizer of sifrc.

    pip install "sifrc[examples]"
    python examples/with_lightning.py

``configure_optimizers`` is all that differs from a module that trains with ``torch.optim``: schedulers,
checkpoints and resuming are Lightning's. A step has derivatives of its own, so that the backward pass of
automatic optimisation is work for nothing; with ``manual=True`` there is none.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import sifrc

EPOCHS = 6


class Digits(lightning.LightningModule):
    """Ten digits in images of 8 × 8 pixels.

    Args:
        rate: λ₁ of grouped Newton, before the scheduler.
        manual: whether the training step calls the optimizer itself.
    """

    def __init__(self, rate: float = 1.0, manual: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = not manual
        self.network = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
        self.loss = nn.CrossEntropyLoss()
        self.example_input_array = torch.zeros(2, 64)
        self.accuracies: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        if self.automatic_optimization:
            images, labels = batch
            return self.loss(self(images), labels)  # the batch that the step will take
        loss = self.optimizers().step(closure=lambda: batch)
        if self.trainer.is_last_batch:
            self.lr_schedulers().step()
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], number: int) -> None:
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    def on_validation_epoch_end(self) -> None:
        self.accuracies.append(float(self.trainer.callback_metrics["accuracy"]))

    def configure_optimizers(self) -> dict[str, object]:
        optimizer = sifrc.optimizer(
            self.network,
            self.loss,
            method="grouped_newton",
            example=self.example_input_array,
            learning_rate=self.hparams.rate,
        )
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], DataLoader[tuple[Tensor, ...]]]:
    """For training and validation, always in the same order."""
    images, labels = load_digits(return_X_y=True)
    images, labels = torch.from_numpy(images / 16.0).float(), torch.from_numpy(labels).long()
    parts = TensorDataset(images[:1437], labels[:1437]), TensorDataset(images[1437:], labels[1437:])
    return DataLoader(parts[0], batch_size=100), DataLoader(parts[1], batch_size=360)


def trained(folder: Path, epochs: int = EPOCHS, manual: bool = False, resume: Path | None = None) -> Digits:
    """A module after some epochs; one checkpoint for each is in the folder.

    Args:
        folder: of the checkpoints.
        epochs: to the end, counted from the very beginning.
        manual: see :class:`Digits`.
        resume: checkpoint to go on from.
    """
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[ModelCheckpoint(folder, "{epoch}", save_top_k=-1)],
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Digits(manual=manual)
    trainer.fit(module, *loaders(), ckpt_path=resume)
    return module


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    with tempfile.TemporaryDirectory() as name:
        module = trained(Path(name))
        for epoch, accuracy in enumerate(module.accuracies, 1):
            print(f"epoch {epoch}: accuracy on new images {accuracy:.1%}")
        again = trained(Path(name) / "again", resume=Path(name) / "epoch=2.ckpt")
        pairs = zip(module.parameters(), again.parameters(), strict=True)
        print("resumed after epoch 3, the same in the end:", all(torch.equal(a, b) for a, b in pairs))


if __name__ == "__main__":
    main()
