"""The paper's experiments (section 5, appendix A), rerunnable: grids of ordinary training runs and what they show."""
