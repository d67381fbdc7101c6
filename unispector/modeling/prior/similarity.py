"""The parts beside the paper's: similarity prior, its way into the decoder, candidate head."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from unispector.modeling.prior.candidate_head import CandidateHead
from unispector.modeling.prior.candidates import part_candidates, query_candidates
from unispector.modeling.prior.evidence import PriorEvidence
from unispector.modeling.prior.grown_candidates import grown_candidates
from unispector.modeling.prior.similarity_prior import SimilarityPrior
from unispector.prior_structures import Candidates, JudgedCandidates, PriorFeatures, PriorMaps
from unispector.structures import LayerPrediction


class Similarity(nn.Module):
    """The three parts of a detector with a similarity prior."""

    def __init__(
        self, prior: SimilarityPrior, evidence: PriorEvidence, head: CandidateHead, grown: int
    ) -> None:
        """Put ready parts together.

        Args:
            prior: compares images with prompts.
            evidence: adds what the prior sees to the decoder's predictions.
            head: judges the prior's parts, the decoder's queries and what they grow to.
            grown: candidates of a class in one image that are grown, at most.
        """
        super().__init__()
        self.prior = prior
        self.evidence = evidence
        self.head = head
        self.grown = grown

    def judge(
        self, features: PriorFeatures, maps: PriorMaps, prediction: LayerPrediction, sizes: Tensor
    ) -> JudgedCandidates:
        """Find and judge the candidates of R images and C classes.

        Args:
            features: of B images; R is a multiple of B.
            maps: what the prior sees.
            prediction: of the last decoder layer.
            sizes: [R, C, 2] mean log of width and height of each class's marks.
        """
        parts = part_candidates(maps)
        of_queries, masks = query_candidates(prediction, maps)
        candidates = Candidates.joined((parts, of_queries))
        canvases = torch.cat((maps.logits.detach().float().flatten(0, 1), masks))
        if self.grown:
            with torch.no_grad():
                first = self.head(candidates, canvases, maps, sizes)
            grown, own = grown_candidates(features, maps, first, self.grown)
            grown = replace(grown, canvas=grown.canvas + len(canvases))
            # All are judged anew, for a seed may be but a piece of what it grew to.
            candidates, canvases = Candidates.joined((candidates, grown)), torch.cat((canvases, own))
        judged: JudgedCandidates = self.head(candidates, canvases, maps, sizes)
        return judged
