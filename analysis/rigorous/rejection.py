"""What the second routine says when it does not agree."""


class CertificateRejected(ValueError):
    """A certificate is damaged, about another model, or claims something that could not be confirmed."""
