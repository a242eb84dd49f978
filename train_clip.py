"""Train a small CLIP: images and the names of their classes in one embedding space.

examples:
  python train_clip.py --quick                    laptop, real MNIST
  python train_clip.py --dataset digits --quick   no download, seconds
  python train_clip.py --embed-dim 64 --out-dir result/clip64

Writes nearest_epoch_XXX.png (column = class: the images nearest to its text), loss.png, metrics.jsonl and
clip_{latest,best}.pt to --out-dir.
"""

import torch
from torch import Tensor

from HW3.cli import at_least, between, parse, run_main, training_parser
from HW3.clip import NUM_CLASSES, SimpleCLIP, contrastive_loss
from HW3.data import load_dataset
from HW3.training import Run
from HW3.viz import save_grid

QUICK = {"epochs": {"digits": 20, "*": 3}, "sample_every": 0}


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/clip", epochs=10, batch_size=256, lr=1e-3, ema=0.0, sample_every=5
    )
    group = parser.add_argument_group("CLIP")
    group.add_argument("--embed-dim", type=at_least(1), default=128, help="size of both embeddings")
    group.add_argument("--weight-decay", type=between(0, 1), default=1e-4, help="AdamW's")
    group.add_argument("--val-split", type=between(0.001, 0.5), default=0.1, help="fraction held out to choose `best`")
    args = parse(parser, QUICK)

    run = Run("clip", "clip", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    train, val = data.split(args.val_split, args.seed)

    config = {"embed_dim": args.embed_dim}
    model = run.prepare(SimpleCLIP(**config), config, weight_decay=args.weight_decay)

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, labels = train.at(idx)  # (B, 1, 32, 32) in [0, 1], (B,)
            with run.autocast():
                image_emb, text_emb, scale = model(x, labels)  # (B, E), (B, E), ()
            run.step(contrastive_loss(image_emb, text_emb, labels, scale, run.gather))

        with run.evaluation() as clip:
            images, labels = val.at(slice(None))
            image_emb = torch.cat([clip.image_encoder(chunk) for chunk in images.split(500)])
            similarity = image_emb @ clip.all_text_embeddings().T  # (N, 10)
            accuracy = (similarity.argmax(dim=1) == labels).float().mean().item()
            val_loss = mean_loss(clip, image_emb, labels, args.batch_size)
            if run.time_for_pictures(epoch):
                nearest = similarity.topk(min(8, len(images)), dim=0).indices  # (8, 10)
                save_grid(
                    images[nearest.flatten()], args.out_dir / f"nearest_epoch_{epoch:03d}.png", columns=NUM_CLASSES
                )
        run.end_epoch(best=1 - accuracy, val_loss=val_loss, val_accuracy=accuracy)


def mean_loss(clip: SimpleCLIP, image_emb: Tensor, labels: Tensor, batch_size: int) -> float:
    """The loss over a whole set, in batches as large as those of training, since it grows with their size."""
    scale, texts = clip.logit_scale.exp(), clip.all_text_embeddings()
    batches = zip(image_emb.split(batch_size), labels.split(batch_size), strict=True)
    total = sum(contrastive_loss(emb, texts[y], y, scale) * len(y) for emb, y in batches)
    return (total / len(labels)).item()


if __name__ == "__main__":
    run_main(main)
