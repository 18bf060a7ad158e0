"""Parameters of other code bases as parameters of these models, and back.

`read` opens a file; `convert` makes parameters of the very model that they come from, `rename` and
`adapt` begin a model with those of another. `to_augreg` and `to_huggingface` lead back.
"""

from token_learner.pretrained.adapt import Row, adapt, format_report
from token_learner.pretrained.convert import convert, rename
from token_learner.pretrained.export import to_augreg, to_huggingface
from token_learner.pretrained.files import read, write_huggingface
from token_learner.pretrained.inflate import INFLATIONS
from token_learner.pretrained.names import HUGGINGFACE_GELUS, OURS, SOURCES

__all__ = [
    'HUGGINGFACE_GELUS',
    'INFLATIONS',
    'OURS',
    'SOURCES',
    'Row',
    'adapt',
    'convert',
    'format_report',
    'read',
    'rename',
    'to_augreg',
    'to_huggingface',
    'write_huggingface',
]
