"""Asking a language model many questions, each paid once: requests, their store, backends."""

from dataprep.llm.answering import Summary, answer, fill
from dataprep.llm.request import FAILURES, Reply, Request
from dataprep.llm.store import RequestStore

__all__ = ["FAILURES", "Reply", "Request", "RequestStore", "Summary", "answer", "fill"]
