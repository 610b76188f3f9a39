"""Validates an OpenAPI document with openapi-spec-validator.

    validate.py DOCUMENT

Prints a line a fault. Where the package is not installed the one line is {"missing": ".."}.
"""

import json
import sys

try:
    from openapi_spec_validator import OpenAPIV31SpecValidator
except ImportError as missing:
    print(json.dumps({"missing": missing.name}))
    sys.exit(0)

with open(sys.argv[1], encoding="utf-8") as document:
    faults = list(OpenAPIV31SpecValidator(json.load(document)).iter_errors())
for fault in faults:
    print(f"{'/'.join(map(str, fault.absolute_path))}: {fault.message}"[:500])
sys.exit(1 if faults else 0)
