"""Prepare the machine so that Jittor starts. No twin."""
