"""Trajectories in: reading what users have, and running reference MD where they have none."""
