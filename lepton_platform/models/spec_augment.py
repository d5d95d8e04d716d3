"""SpecAugment (Park et al., 2019, arXiv:1904.08779): stretches of time and bands of frequency that are not heard."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class Masks(BaseModel):
    """How much of a spectrum is hidden in training; the lengths are drawn from zero to the most."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_masks: int = Field(0, ge=0)
    time_share: float = Field(0.05, ge=0, le=1, description="The most that one hides of a recording.")
    band_masks: int = Field(0, ge=0)
    bands: int = Field(12, ge=0, description="The most bands that one hides.")


class SpecAugment(nn.Module):
    """(B, M, T) → the same with stretches and bands at the row's mean; nothing where it is not training.

    Draws from torch's generator alone, one draw a row and mask.
    """

    def __init__(self, masks: Masks) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x_BMT: Tensor) -> Tensor:
        if not self.training or not (self.masks.time_masks or self.masks.band_masks):
            return x_BMT
        rows, bands, frames = x_BMT.shape
        hidden = torch.zeros_like(x_BMT, dtype=torch.bool)
        for _ in range(self.masks.time_masks):
            hidden |= _stretch(rows, frames, self.masks.time_share * frames, x_BMT.device)[:, None, :]
        for _ in range(self.masks.band_masks):
            hidden |= _stretch(rows, bands, min(self.masks.bands, bands), x_BMT.device)[:, :, None]
        return torch.where(hidden, x_BMT.mean(dim=(1, 2), keepdim=True), x_BMT)


def _stretch(rows: int, length: int, most: float, device: torch.device) -> Tensor:
    """(rows, length) bool: one run of a drawn length at a drawn place in every row."""
    drawn = torch.rand(2, rows, 1, device=device)
    width = (drawn[0] * (most + 1)).floor()
    start = (drawn[1] * (length - width + 1)).floor()
    place = torch.arange(length, device=device)
    return (place >= start) & (place < start + width)
