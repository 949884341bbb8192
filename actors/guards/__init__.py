"""What a run watches itself with: guards over its metrics, and trust in its reward."""
