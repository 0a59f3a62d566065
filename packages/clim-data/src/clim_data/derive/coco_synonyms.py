"""Other names of the classes of COCO, as LVIS writes them (arXiv 1908.03195).

"_" is a blank, and the text after "(" distinguishes meanings. Classes that are not here have only
their own name.
"""

_TABLE = """
person: person, baby, child, boy, girl, man, woman, human
bicycle: bicycle, bike_(bicycle)
car: car_(automobile), auto_(automobile), automobile
airplane: airplane, aeroplane
bus: bus_(vehicle), autobus, charabanc, double-decker, motorbus, motorcoach
train: train_(railroad_vehicle), railroad_train
boat: boat, ship_(boat)
fire hydrant: fireplug, fire_hydrant, hydrant
backpack: backpack, knapsack, packsack, rucksack, haversack
handbag: handbag, purse, pocketbook
tie: necktie, tie_(necktie)
suitcase: suitcase, baggage, luggage
skis: ski
sports ball: ball
baseball glove: baseball_glove, baseball_mitt
wine glass: wineglass
orange: orange_(fruit)
hot dog: sausage
donut: doughnut, donut
couch: sofa, couch, lounge
potted plant: flowerpot
tv: television_set, tv, tv_set
laptop: laptop_computer, notebook_computer
mouse: mouse_(computer_equipment), computer_mouse
remote: remote_control
keyboard: computer_keyboard, keyboard_(computer)
cell phone: cellular_telephone, cellular_phone, cellphone, mobile_phone, smart_phone
microwave: microwave_oven
clock: clock, timepiece, timekeeper
hair drier: hair_dryer
"""

COCO_SYNONYMS: dict[str, tuple[str, ...]] = {}
for _line in _TABLE.strip().splitlines():
    _name, _, _others = _line.partition(": ")
    COCO_SYNONYMS[_name] = tuple(_others.split(", "))
"""Name of a class -> the names that stand for it in captions."""
