"""Layers that several networks share."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets each number to zero with a given probability while training, and scales up the others to match.

    The same as torch's, which draws one random number for each; this draws 16 bits for each, several times faster on
    processors. The probability is therefore a multiple of 1/65536. Source: Srivastava et al., JMLR 15 (2014).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.dropped = round(probability * 2**16)

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or not self.dropped:
            return values
        words = torch.empty(-(-values.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = words.view(torch.int16)[: values.numel()]
        # Drawn in memory order, so that the mask is laid out as the values are.
        kept = torch.empty_like(values, memory_format=torch.preserve_format)
        torch.as_strided(kept, (values.numel(),), (1,)).copy_(bits >= self.dropped - 2**15)
        return values * kept.mul_(1 / (1 - self.dropped / 2**16))

    def extra_repr(self) -> str:
        return f"{self.dropped / 2**16:.4g}"
