"""The tasks by name."""

from model.config import Task
from model.tasks.learning_task import LearningTask
from model.tasks.multi_label import MultiLabelTask
from model.tasks.multi_task import MultiTask
from model.tasks.regression import RegressionTask
from model.tasks.single_label import SingleLabelTask
from model.tasks.tags import TagTask

TASKS: dict[Task, type[LearningTask]] = {
    task.name: task
    for task in (SingleLabelTask, MultiLabelTask, TagTask, RegressionTask, MultiTask)
}


def task_named(name: Task) -> type[LearningTask]:
    return TASKS[name]
