"""Settling tasks whose webhook or submit response was lost, from the API.

Begin with `reconciler`.
"""
