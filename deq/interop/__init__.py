"""Where torch's own machinery is met: closures, function transforms, compiled maps, autocast."""
