"""The Vid2Seq variant of streaming dense captions: a temporal transformer over frame features and a T5 text model."""
