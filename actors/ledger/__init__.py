"""The durable account of every sample: what is written, what it adds up to, and the proof that it balances."""
