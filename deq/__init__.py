"""Deep equilibrium layers whose derivatives are right: solvers, gradient rules, objectives and the papers' models."""
