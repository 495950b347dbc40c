"""From a run's folder to a trained model: the driver beside Ray, and the function it gives Ray.

The one place where Ray Train meets nanochat (`worker`).
"""
