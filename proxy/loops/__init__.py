"""The loops: evidence into verdicts, verdicts into acts, deferrals into answers. The imperative shell around `core`."""
