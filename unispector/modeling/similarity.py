"""What stands beside the paper's parts: similarity prior, its way into the decoder, candidate head."""

import torch
from torch import Tensor, nn

from unispector.modeling.candidate_head import CandidateHead
from unispector.modeling.candidates import part_candidates, query_candidates
from unispector.modeling.prior_evidence import PriorEvidence
from unispector.modeling.similarity_prior import SimilarityPrior
from unispector.prior_structures import Candidates, JudgedCandidates, PriorMaps
from unispector.structures import LayerPrediction


class Similarity(nn.Module):
    """The three parts of a detector with a similarity prior."""

    def __init__(self, prior: SimilarityPrior, evidence: PriorEvidence, head: CandidateHead) -> None:
        """Put ready parts together.

        Args:
            prior: compares images with prompts.
            evidence: adds what the prior sees to the decoder's predictions.
            head: judges the prior's parts and the decoder's queries.
        """
        super().__init__()
        self.prior = prior
        self.evidence = evidence
        self.head = head

    def judge(self, maps: PriorMaps, prediction: LayerPrediction, sizes: Tensor) -> JudgedCandidates:
        """Find and judge the candidates of R images and C classes.

        Args:
            maps: what the prior sees.
            prediction: of the last decoder layer.
            sizes: [R, C, 2] mean log of width and height of each class's marks.
        """
        parts = part_candidates(maps)
        of_queries, masks = query_candidates(prediction, maps)
        candidates = Candidates.joined((parts, of_queries))
        canvases = torch.cat((maps.logits.detach().float().flatten(0, 1), masks))
        judged: JudgedCandidates = self.head(candidates, canvases, maps, sizes)
        return judged
