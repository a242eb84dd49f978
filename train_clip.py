"""Train a small CLIP: images and the names of their classes in one embedding space.

examples:
  python train_clip.py --quick                    laptop, real MNIST
  python train_clip.py --dataset digits --quick   no download, seconds
  python train_clip.py --embed-dim 64 --out-dir result/clip64

Writes nearest_epoch_XXX.png (column = class: the images nearest to its text), loss.png, metrics.jsonl and
clip_{latest,best}.pt to --out-dir.
"""

import HW3.plumbing.startup  # noqa: F401  before torch, which may not be there

# isort: split
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from HW3.clip import NUM_CLASSES, SimpleCLIP, contrastive_loss
from HW3.data import load_dataset
from HW3.learning_rate import warmup_cosine
from HW3.plumbing.cli import at_least, between, parse, run_main, training_parser
from HW3.plumbing.run import Run
from HW3.viz import save_grid

QUICK = {"epochs": {"digits": 20, "*": 4}, "sample_every": 0}
PAPER: dict = {}  # nothing here is newer than Radford et al. 2021


def main() -> None:
    parser = training_parser(
        __doc__, out_dir="result/clip", epochs=10, batch_size=256, lr=1e-3, ema=0.0, sample_every=5
    )
    group = parser.add_argument_group("CLIP")
    group.add_argument("--embed-dim", type=at_least(1), default=128, help="size of both embeddings")
    group.add_argument("--weight-decay", type=between(0, 1), default=1e-4, help="AdamW's")
    group.add_argument("--val-split", type=between(0.001, 0.5), default=0.1, help="fraction held out to choose `best`")
    args = parse(parser, QUICK, PAPER)

    run = Run("clip", "clip", args)
    data = load_dataset(args.dataset, args.data_dir, limit=args.limit).to(run.device)
    train, val = data.split(args.val_split, args.seed)

    clip = SimpleCLIP(args.embed_dim).to(run.device).to(memory_format=torch.channels_last)
    ema = AveragedModel(clip, multi_avg_fn=get_ema_multi_avg_fn(args.ema))
    optimizer = torch.optim.AdamW(clip.parameters(), lr=args.lr, weight_decay=args.weight_decay, fused=True)
    model = run.start(clip, ema, optimizer, config={"embed_dim": args.embed_dim})

    for epoch in run.epochs():
        for idx in run.batches(len(train)):
            x, labels = train.batch(idx)  # (B, 1, 32, 32) in [0, 1], (B,)
            with run.autocast():
                image_emb, text_emb, scale = model(x, labels)  # (B, E), (B, E), ()
            # Each image is compared with all texts of the batch, also those of other processes.
            loss = contrastive_loss(image_emb, text_emb, labels, scale, gather=run.world.gather)

            optimizer.zero_grad()
            loss.backward()
            grad_norm = clip_grad_norm_(model.parameters(), 10.0)
            for params in optimizer.param_groups:
                params["lr"] = args.lr * warmup_cosine(run.step, run.total_steps)
            optimizer.step()
            ema.update_parameters(clip)
            run.log(loss=loss, grad_norm=grad_norm)

        with run.evaluation() as eval_clip:
            x, labels = val.batch(slice(None))
            image_emb = torch.cat([eval_clip.image_encoder(chunk) for chunk in x.split(500)])
            similarity = image_emb @ eval_clip.all_text_embeddings().T  # (N, 10)
            accuracy = (similarity.argmax(dim=1) == labels).float().mean().item()
            val_loss = mean_loss(eval_clip, image_emb, labels, args.batch_size)
            if run.time_for_pictures(epoch):
                nearest = similarity.topk(min(8, len(x)), dim=0).indices.flatten()  # 8 rows of 10
                save_grid(x[nearest], args.out_dir / f"nearest_epoch_{epoch:03d}.png", columns=NUM_CLASSES)
        run.end_epoch(best=1 - accuracy, val_loss=val_loss, val_accuracy=accuracy)


def mean_loss(clip: SimpleCLIP, image_emb: Tensor, labels: Tensor, batch_size: int) -> float:
    """The loss over a whole set, in batches as large as those of training, since it grows with their size."""
    texts = clip.all_text_embeddings()
    batches = zip(image_emb.split(batch_size), labels.split(batch_size), strict=True)
    total = sum(contrastive_loss(emb, texts[y], y, clip.scale).item() * len(y) for emb, y in batches)
    return total / len(labels)


if __name__ == "__main__":
    run_main(main)
