/*
 * Starts another kernel from this one, past the firmware.
 *
 *   kexec KERNEL INITRD COMMAND-LINE
 */
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc != 4)
        return fprintf(stderr, "usage: kexec KERNEL INITRD COMMAND-LINE\n"), 2;
    int kernel = open(argv[1], O_RDONLY | O_CLOEXEC);
    int initrd = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (kernel < 0 || initrd < 0)
        return perror("kexec: open"), 1;
    /* The length counts the final 0. */
    if (syscall(SYS_kexec_file_load, kernel, initrd, strlen(argv[3]) + 1, argv[3], 0ul) != 0)
        return perror("kexec_file_load"), 1;
    reboot(LINUX_REBOOT_CMD_KEXEC);
    return perror("kexec: reboot"), 1;
}
