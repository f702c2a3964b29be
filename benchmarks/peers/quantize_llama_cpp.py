"""Quantizes a float16 GGUF through llama.cpp's API, with its defaults.

python quantize_llama_cpp.py IN.gguf OUT.gguf q4_0|q4_1|q4_k_s|q4_k_m
"""

from __future__ import annotations

import ctypes
import sys

import llama_cpp

FILE_TYPES = {
    "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "q4_1": "LLAMA_FTYPE_MOSTLY_Q4_1",
    "q4_k_s": "LLAMA_FTYPE_MOSTLY_Q4_K_S",
    "q4_k_m": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
}


def main() -> None:
    source, target, name = sys.argv[1:]
    llama_cpp.llama_backend_init()
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, FILE_TYPES[name])
    status = llama_cpp.llama_model_quantize(
        source.encode(), target.encode(), ctypes.byref(settings)
    )
    if status != 0:
        raise SystemExit(f"llama_model_quantize failed: {status}")


if __name__ == "__main__":
    main()
