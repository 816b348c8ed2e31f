// A job type for Flamenco 3, written by Track Everything. Put it into the manager's scripts folder and refresh the
// job types. Every task does only what is missing, so any of them may be requeued.

const JOB_TYPE = {
    label: __LABEL__,
    description: "The motion of every pixel of these clips",
    settings: [
        { key: "omnimotion", type: "string", required: true, default: __COMMAND__, visible: "submission",
          description: "The program on the workers: a name on their PATH, a path, or a variable of the manager" },
        { key: "gpu_task_type", type: "string", required: true, default: "misc", visible: "submission",
          description: "Task type of what needs a GPU; give one that only workers with a GPU have among their task_types" },
    ],
};

// Each with its arguments, and the places in this list of those that must be completed before it.
const TASKS = __TASKS__;

function compileJob(job) {
    const settings = job.settings;
    const authored = [];
    for (let entry of TASKS) {
        const task = author.Task(entry.name, entry.gpu ? settings.gpu_task_type : "misc");
        task.addCommand(author.Command("exec", { exe: settings.omnimotion, args: entry.args }));
        for (let index of entry.after) {
            task.addDependency(authored[index]);
        }
        job.addTask(task);
        authored.push(task);
    }
}
