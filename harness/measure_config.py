"""What a user may choose about the measuring: the device, the number types, threads, and how long. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tasks.names import did_you_mean

DTYPES: Final = ("float32", "float64")
DEVICES: Final = ("cpu", "cuda")
AUTOCASTS: Final = ("bf16",)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """Device, number type, CPU threads (null: cores - 1), and the seconds after which a trial counts as hung.

    ``autocast`` runs forward passes, not the loss, under autocast; ``tf32`` lets CUDA round products of float32.
    ``split_steps`` are timed phase by phase after the training, 0: none.
    """

    device: str = "cpu"
    dtype: str = "float32"
    threads: int | None = None
    timeout_s: float = 3600.0
    autocast: str | None = None
    tf32: bool = False
    split_steps: int = 12

    def __post_init__(self) -> None:
        if self.device not in DEVICES:
            raise ValueError(f"measure.device={self.device!r}: {did_you_mean(self.device, DEVICES)}")
        if self.dtype not in DTYPES:
            raise ValueError(f"measure.dtype={self.dtype!r}: {did_you_mean(self.dtype, DTYPES)}")
        if self.autocast is not None and self.autocast not in AUTOCASTS:
            raise ValueError(f"measure.autocast={self.autocast!r}: allowed are {', '.join(AUTOCASTS)}, or null")
        if self.autocast is not None and self.dtype != "float32":
            raise ValueError(f"measure.autocast={self.autocast!r} with measure.dtype={self.dtype!r}: allowed is null")
        if self.tf32 and (self.device, self.dtype) != ("cuda", "float32"):
            raise ValueError(
                f"measure.tf32=True with measure.device={self.device!r} and measure.dtype={self.dtype!r}: TF32 is how "
                "CUDA devices multiply float32; allowed is false"
            )
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"measure.threads={self.threads!r}: allowed is 1 or more, or null")
        if self.split_steps < 0:
            raise ValueError(f"measure.split_steps={self.split_steps!r}: allowed is 0 or more")
        if not self.timeout_s > 0:
            raise ValueError(f"measure.timeout_s={self.timeout_s!r}: allowed is a number above 0")
