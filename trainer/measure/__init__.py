"""What a step did: metrics, operations, logs. Nothing here changes what is trained."""
