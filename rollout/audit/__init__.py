"""How far a reward can be trusted: estimators over scores and gold labels, and what they advise. Pure; no files."""
