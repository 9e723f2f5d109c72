"""The names that others give to the parts of their networks, and ours for the same parts.

A rule is a pattern and what replaces it; None leaves a part out on purpose (heads, decoders, copies). The first pattern that matches the
whole name decides, and a name without a rule is reported as unexpected.
"""

import re
from typing import Literal

Kind = Literal["mae", "monai_vit", "monai_swin", "nnunet"]

_END = r"\.(weight|bias)"
_BLOCK = r"blocks\.(\d+)\."

RULES: dict[str, list[tuple[str, str | None]]] = {
    "mae": [
        (r"(decoder_.*|mask_token|head\..*|fc_norm\..*)", None),
        (r"patch_embed\.proj" + _END, r"embed.\1"),
        (r"pos_embed", "position_table"),
        (r"cls_token", "registers"),
        (_BLOCK + r"norm1" + _END, r"blocks.\1.norm_attention.\2"),
        (_BLOCK + r"attn\.qkv" + _END, r"blocks.\1.qkv.\2"),
        (_BLOCK + r"attn\.proj" + _END, r"blocks.\1.project.\2"),
        (_BLOCK + r"norm2" + _END, r"blocks.\1.norm_mlp.\2"),
        (_BLOCK + r"mlp\.fc1" + _END, r"blocks.\1.mlp.0.\2"),
        (_BLOCK + r"mlp\.fc2" + _END, r"blocks.\1.mlp.2.\2"),
        (r"norm" + _END, r"norm.\1"),
    ],
    "monai_vit": [
        (r"(decoder.*|mask_tokens|classification_head\..*|conv3d_transpose.*|encoder\d+\..*|out\..*)", None),
        (_BLOCK + r"(norm_cross_attn|cross_attn)\..*", None),  # made, and never used, by some versions
        (r"patch_embedding\.patch_embeddings(?:\.1)?" + _END, r"embed.\1"),
        (r"patch_embedding\.position_embeddings", "position_table"),
        (r"(patch_embedding\.)?cls_token", "registers"),
        (_BLOCK + r"norm1" + _END, r"blocks.\1.norm_attention.\2"),
        (_BLOCK + r"attn\.qkv" + _END, r"blocks.\1.qkv.\2"),
        (_BLOCK + r"attn\.out_proj" + _END, r"blocks.\1.project.\2"),
        (_BLOCK + r"norm2" + _END, r"blocks.\1.norm_mlp.\2"),
        (_BLOCK + r"mlp\.linear1" + _END, r"blocks.\1.mlp.0.\2"),
        (_BLOCK + r"mlp\.linear2" + _END, r"blocks.\1.mlp.2.\2"),
        (r"blocks\.\d+" + _END, r"norm.\1"),  # the masked autoencoder ends its list of blocks with the normalisation
        (r"norm" + _END, r"norm.\1"),
    ],
    "monai_swin": [
        (r"(encoder\d+|decoder\d*|out|norm|head|conv|rotation\w*|contrastive\w*|position\w*)\..*", None),
        (r"(?:swinViT\.|swin_vit\.)?(layers.*\.mlp\.)fc(\d)" + _END, r"net.\1linear\2.\3"),
        (r"(?:swinViT\.|swin_vit\.)?((?:patch_embed|layers\dc?)\..*)", r"net.\1"),
    ],
    "nnunet": [
        (r"(decoder\..*|seg_layers\..*|.*\.all_modules\..*)", None),  # `all_modules` names the convolutions a second time
        (r"(?:encoder\.)?stem\.convs\.0\.(conv|norm)" + _END, r"stem.\1.\2"),
        (r"(?:encoder\.)?stages\.(\d+)\.blocks\.(\d+)\.conv1\.(conv|norm)" + _END, r"stages.\1.\2.first.\3.\4"),
        (r"(?:encoder\.)?stages\.(\d+)\.blocks\.(\d+)\.conv2\.(conv|norm)" + _END, r"stages.\1.\2.second.\3.\4"),
        (r"(?:encoder\.)?stages\.(\d+)\.blocks\.(\d+)\.skip\.\d\.(conv|norm)" + _END, r"stages.\1.\2.skip.\3.\4"),
    ],
}


def translated(name: str, kind: Kind) -> str | None:
    """Our name for a part, the name itself where no rule knows it, or None where it is no part of an encoder."""
    for pattern, replacement in RULES[kind]:
        match = re.fullmatch(pattern, name)
        if match:
            return None if replacement is None else match.expand(replacement)
    return name
