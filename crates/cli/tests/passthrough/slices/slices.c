// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * A graphics card's driver that offers mediated devices, for tests: it stands where a vendor's vGPU driver would, so that
 * the kernel's own mdev core, its sysfs files and VFIO are the real ones. It takes QEMU's `bochs-display`, has room for
 * four units, and offers a type of one unit and one of two. A slice is a PCI display with 4 KiB of memory in BAR 0.
 */
#include <linux/mdev.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/version.h>
#include <linux/vfio.h>

#define UNITS 4
#define CONFIG_BYTES 256
#define MEMORY_BYTES 4096
#define REGION_SHIFT 40

struct kind {
	struct mdev_type type;
	int units;
};

struct card {
	struct mdev_parent parent;
	atomic_t left;
};

struct slice {
	struct vfio_device vdev;
	struct mdev_device *mdev;
	u8 config[CONFIG_BYTES];
	u8 *memory;
};

static struct kind small = { .type = { .sysfs_name = "small", .pretty_name = "One unit" }, .units = 1 };
static struct kind large = { .type = { .sysfs_name = "large", .pretty_name = "Two units" }, .units = 2 };
static atomic_t taken = ATOMIC_INIT(0);
static struct mdev_type *kinds[] = { &small.type, &large.type };

static struct card *card_of(struct mdev_type *type)
{
	return container_of(type->parent, struct card, parent);
}

static int units_of(struct mdev_type *type)
{
	return container_of(type, struct kind, type)->units;
}

static int slice_init(struct vfio_device *vdev)
{
	struct slice *slice = container_of(vdev, struct slice, vdev);
	struct mdev_device *mdev = to_mdev_device(vdev->dev);
	struct card *card = card_of(mdev->type);
	int units = units_of(mdev->type);

	int left = atomic_read(&card->left);

	slice->memory = kzalloc(MEMORY_BYTES, GFP_KERNEL);
	if (!slice->memory)
		return -ENOMEM;
	do {
		if (left < units) {
			kfree(slice->memory);
			return -ENOSPC;
		}
	} while (!atomic_try_cmpxchg(&card->left, &left, left - units));
	slice->mdev = mdev;
	*(__le16 *)&slice->config[PCI_VENDOR_ID] = cpu_to_le16(0x1234);
	*(__le16 *)&slice->config[PCI_DEVICE_ID] = cpu_to_le16(0x51ce);
	*(__le16 *)&slice->config[PCI_CLASS_DEVICE] = cpu_to_le16(PCI_CLASS_DISPLAY_OTHER);
	*(__le32 *)&slice->config[PCI_BASE_ADDRESS_0] = cpu_to_le32(PCI_BASE_ADDRESS_SPACE_MEMORY);
	return 0;
}

static void slice_release(struct vfio_device *vdev)
{
	struct slice *slice = container_of(vdev, struct slice, vdev);

	atomic_add(units_of(slice->mdev->type), &card_of(slice->mdev->type)->left);
	kfree(slice->memory);
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	vfio_free_device(vdev);
#endif
}

/* The bytes that a read or a write of `count` bytes at `at` means, at most to the end of its region; NULL if there are none. */
static u8 *bytes_at(struct slice *slice, loff_t at, size_t *count)
{
	u64 region = at >> REGION_SHIFT, offset = at & ((1ULL << REGION_SHIFT) - 1);
	bool config = region == VFIO_PCI_CONFIG_REGION_INDEX;
	u64 size = config ? CONFIG_BYTES : MEMORY_BYTES;

	if ((!config && region != VFIO_PCI_BAR0_REGION_INDEX) || offset >= size)
		return NULL;
	*count = min_t(u64, *count, size - offset);
	return (config ? slice->config : slice->memory) + offset;
}

static ssize_t slice_read(struct vfio_device *vdev, char __user *to, size_t count, loff_t *at)
{
	u8 *bytes = bytes_at(container_of(vdev, struct slice, vdev), *at, &count);

	if (!bytes)
		return -EINVAL;
	if (copy_to_user(to, bytes, count))
		return -EFAULT;
	*at += count;
	return count;
}

static ssize_t slice_write(struct vfio_device *vdev, const char __user *from, size_t count, loff_t *at)
{
	struct slice *slice = container_of(vdev, struct slice, vdev);
	u8 *bytes = bytes_at(slice, *at, &count);

	if (!bytes)
		return -EINVAL;
	/* Of the configuration only the command register can be changed. */
	if (*at >> REGION_SHIFT == VFIO_PCI_BAR0_REGION_INDEX || (bytes == &slice->config[PCI_COMMAND] && count <= 2)) {
		if (copy_from_user(bytes, from, count))
			return -EFAULT;
	}
	*at += count;
	return count;
}

static long region_info(struct vfio_region_info __user *argument)
{
	struct vfio_region_info info;
	size_t known = offsetofend(struct vfio_region_info, offset);

	if (copy_from_user(&info, argument, known))
		return -EFAULT;
	if (info.argsz < known || info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info.offset = (u64)info.index << REGION_SHIFT;
	info.size = info.index == VFIO_PCI_CONFIG_REGION_INDEX ? CONFIG_BYTES :
		    info.index == VFIO_PCI_BAR0_REGION_INDEX ? MEMORY_BYTES : 0;
	info.flags = info.size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0;
	return copy_to_user(argument, &info, known) ? -EFAULT : 0;
}

static long slice_ioctl(struct vfio_device *vdev, unsigned int command, unsigned long argument)
{
	struct vfio_device_info device = {
		.argsz = offsetofend(struct vfio_device_info, num_irqs),
		.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
		.num_regions = VFIO_PCI_NUM_REGIONS,
		.num_irqs = VFIO_PCI_NUM_IRQS,
	};
	struct vfio_irq_info irq;
	size_t known = offsetofend(struct vfio_irq_info, count);

	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return copy_to_user((void __user *)argument, &device, device.argsz) ? -EFAULT : 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info((void __user *)argument);
	case VFIO_DEVICE_GET_IRQ_INFO:
		if (copy_from_user(&irq, (void __user *)argument, known))
			return -EFAULT;
		irq.flags = 0;
		irq.count = 0;
		return copy_to_user((void __user *)argument, &irq, known) ? -EFAULT : 0;
	case VFIO_DEVICE_RESET:
		return 0;
	default:
		return -ENOTTY;
	}
}

static const struct vfio_device_ops slice_ops = {
	.name = "slices",
	.init = slice_init,
	.release = slice_release,
	.read = slice_read,
	.write = slice_write,
	.ioctl = slice_ioctl,
};

static int slice_probe(struct mdev_device *mdev)
{
	struct slice *slice = vfio_alloc_device(slice, vdev, &mdev->dev, &slice_ops);
	int error;

	if (IS_ERR(slice))
		return PTR_ERR(slice);
	error = vfio_register_emulated_iommu_dev(&slice->vdev);
	if (error) {
		vfio_put_device(&slice->vdev);
		return error;
	}
	dev_set_drvdata(&mdev->dev, slice);
	return 0;
}

static void slice_remove(struct mdev_device *mdev)
{
	struct slice *slice = dev_get_drvdata(&mdev->dev);

	vfio_unregister_group_dev(&slice->vdev);
	vfio_put_device(&slice->vdev);
}

static unsigned int available(struct mdev_type *type)
{
	return atomic_read(&card_of(type)->left) / units_of(type);
}

static ssize_t description(struct mdev_type *type, char *text)
{
	return sysfs_emit(text, "%d of %d units\n", units_of(type), UNITS);
}

static struct mdev_driver slice_driver = {
	.device_api = VFIO_DEVICE_API_PCI_STRING,
	.driver = { .name = "slices_mdev", .owner = THIS_MODULE, .mod_name = KBUILD_MODNAME },
	.probe = slice_probe,
	.remove = slice_remove,
	.get_available = available,
	.show_description = description,
};

static int card_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct card *card;

	/* The types can be registered once, for one card. */
	if (atomic_cmpxchg(&taken, 0, 1))
		return -EBUSY;
	card = devm_kzalloc(&pdev->dev, sizeof(*card), GFP_KERNEL);
	if (!card)
		return -ENOMEM;
	atomic_set(&card->left, UNITS);
	pci_set_drvdata(pdev, card);
	return mdev_register_parent(&card->parent, &pdev->dev, &slice_driver, kinds, ARRAY_SIZE(kinds));
}

static void card_remove(struct pci_dev *pdev)
{
	struct card *card = pci_get_drvdata(pdev);

	mdev_unregister_parent(&card->parent);
}

static const struct pci_device_id cards[] = { { PCI_DEVICE(0x1234, 0x1111) }, {} };

static struct pci_driver card_driver = {
	.name = "slices",
	.id_table = cards,
	.probe = card_probe,
	.remove = card_remove,
};

static int __init slices_init(void)
{
	int error = mdev_register_driver(&slice_driver);

	if (error)
		return error;
	error = pci_register_driver(&card_driver);
	if (error)
		mdev_unregister_driver(&slice_driver);
	return error;
}

static void __exit slices_exit(void)
{
	pci_unregister_driver(&card_driver);
	mdev_unregister_driver(&slice_driver);
}

module_init(slices_init);
module_exit(slices_exit);
MODULE_DESCRIPTION("Mediated devices of a card that is emulated, for tests");
MODULE_LICENSE("Dual MIT/GPL");
