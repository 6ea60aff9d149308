"""The transferred corpus: for every child frame a general picture with child-directed words."""

from dataprep.transfer.stage import Options, Transferred, transfer

__all__ = ["Options", "Transferred", "transfer"]
