"""Evaluation of baby vision-language models: tasks as YAML, score records, figures with floors."""
