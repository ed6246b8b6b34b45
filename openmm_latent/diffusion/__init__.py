"""Diffusion models: schedules and samplers that several families share."""
