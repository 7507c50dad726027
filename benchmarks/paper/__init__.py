"""The paper's supplement, reproduced: tables 1 and 2 and figures 1 to 4."""
