from dataclasses import dataclass
@dataclass(frozen=True)
class Options:
    softcap: float = 0.0
